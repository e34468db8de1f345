"""Unpacks untrusted zip and tar archives; checks all members before writing any.

Archives are refused if a member's name leads out of the folder, if they contain links,
devices or encrypted members, or if they would unpack to more than the limits.
"""

import bz2
import errno
import filecmp
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from data_pipelines.frames import DataError
from data_pipelines.io.files import WriteError, error_text
from data_pipelines.io.names import name_fault
from data_pipelines.io.pairs import is_skipped

_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CHUNK = 1 << 20
# Maximum number of padding bytes after the end of a tar file.
_MAX_PADDING = 16 << 20

# Exceptions that the readers of archives raise for damaged files.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    UnicodeError,
)


@dataclass(frozen=True)
class Limits:
    """Limits on the contents of an archive.

    Attributes:
        size: maximum total number of bytes.
        ratio: maximum ratio of unpacked to packed bytes; archives that unpack to less
            than a megabyte are exempt.
        count: maximum number of members.
    """

    size: int = 200 * 10**9
    ratio: float = 100.0
    count: int = 500_000


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    kind: str
    open: Callable[[], IO[bytes] | None]


def is_archive(path: str | Path) -> bool:
    """Returns whether a file has the suffix of a zip or tar archive."""
    return str(path).lower().endswith(_ZIP + _TAR)


def extract(
    archive: str | Path, folder: str | Path, limits: Limits | None = None
) -> int:
    """Unpacks an archive into a folder, which may contain files of other archives.

    Hidden files and those that macOS adds (`__MACOSX`) are skipped. Permissions, owners
    and times are not restored.

    Args:
        archive: a zip or tar file; tar files may be compressed.
        folder: the folder, which is created if necessary.
        limits: limits on the contents; None: the default `Limits()`.

    Returns:
        The number of files written.

    Raises:
        FileNotFoundError: the archive does not exist.
        DataError: the file is not an archive, contains no files, is damaged, or is
            refused. Nothing has been written, unless the contents of a file are
            damaged.
        WriteError: a file cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    limits = Limits() if limits is None else limits
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such file")
    try:
        with _open(archive) as opened:
            members = _check_members(archive, opened, limits)
            if not members:
                raise DataError([f"{archive}: contains no files; use another archive"])
            for member in members:
                _write(archive, member, folder)
    except (DataError, WriteError):
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except ValueError as error:  # invalid numbers in a header
        raise _damaged(archive, error) from error
    except OSError as error:
        # Errors of the system have a number, those of decompressors have none. A
        # damaged header may cause a seek to a negative offset (EINVAL).
        if error.errno not in (None, errno.EINVAL):
            path = error.filename or folder
            raise WriteError(f"{path}: {error_text(error)}") from error
        raise _damaged(archive, error) from error
    return len(members)


def _damaged(archive: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError([f"{archive}: damaged ({reason}); download it again"])


@contextmanager
def _open(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    name = archive.name.lower()
    if name.endswith(_ZIP):
        with zipfile.ZipFile(archive) as opened:
            yield opened
    elif name.endswith(_TAR):
        with _decompress(archive) as stream:
            limited: Any = _LimitedReads(archive, stream)
            with tarfile.open(fileobj=limited, mode="r:") as opened:
                yield opened
    else:
        kinds = ", ".join(_ZIP + _TAR)
        raise DataError([f"{archive}: not an archive; must be one of {kinds}"])


def _decompress(archive: Path) -> IO[bytes]:
    """Opens the tar file; the compression is detected by content, not by name."""
    with archive.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(archive))
    if magic.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(archive))
    if magic.startswith(b"\xfd7zXZ"):
        return cast(IO[bytes], lzma.open(archive))
    return archive.open("rb")


class _LimitedReads:
    """A file object that refuses large reads.

    `tarfile` reads files in chunks but a header in one piece, whatever its size, and a
    huge header may be compressed to almost nothing.
    """

    def __init__(self, archive: Path, stream: IO[bytes]):
        self._archive, self._stream = archive, stream
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self.seekable, self.name, self.mode = stream.seekable, str(archive), "rb"

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise DataError(
                [f"{self._archive}: a header of {size / 1e6:.0f} MB; refused"]
            )
        return self._stream.read(size)

    def finish(self) -> None:
        """Reads to the end of the file, where gzip verifies its checksum."""
        for _ in range(_MAX_PADDING // _CHUNK):
            if not self._stream.read(_CHUNK):
                return
        raise DataError([f"{self._archive}: has data after its end; refused"])


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            kind, read = _zip_kind(info), partial(opened.open, info)
            # `filename` is cut at a NUL character, `orig_filename` is complete.
            yield _Member(info.orig_filename, info.file_size, kind, read)
        return
    for info in opened:
        kind = "file" if info.isfile() else "folder" if info.isdir() else "special"
        if info.issym() or info.islnk():
            kind = "link"
        yield _Member(info.name, info.size, kind, partial(opened.extractfile, info))
    cast(_LimitedReads, opened.fileobj).finish()


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted"
    file_type = stat.S_IFMT(info.external_attr >> 16)
    if file_type == stat.S_IFLNK:
        return "link"
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "special"
    return "folder" if info.is_dir() else "file"


def _check_members(
    archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, limits: Limits
) -> list[_Member]:
    """Returns the files to unpack.

    Raises:
        DataError: a member is refused, or a limit is exceeded.
    """
    packed = archive.stat().st_size
    total = 0
    faults: list[str] = []
    files: list[_Member] = []
    names: set[str] = set()
    for count, member in enumerate(_members(opened), start=1):
        total += member.size
        # Checked while listing, because listing a compressed tar file unpacks it.
        fault = _limit_fault(count, total, packed, limits)
        if fault:
            raise DataError([f"{archive}: {fault}; refused"])
        path = PurePosixPath(member.name)
        if member.kind == "folder" and member.name.startswith(".") and not path.parts:
            continue  # "./", the folder itself, written by `tar -czf x.tar.gz .`
        fault = _name_fault(member.name)
        if fault:
            faults.append(f"{archive}: member {member.name!r} {fault}; refused")
            continue
        if any(map(is_skipped, path.parts)):
            continue
        if member.kind not in ("file", "folder"):
            kind = {"link": "a link", "encrypted": "encrypted"}.get(
                member.kind, "not a regular file"
            )
            faults.append(f"{archive}: member {member.name!r} is {kind}; refused")
        elif member.kind == "file":
            if str(path) in names:
                faults.append(f"{archive}: member {member.name!r} occurs twice")
            names.add(str(path))
            files.append(member)
    if faults:
        raise DataError(faults)
    return files


def _limit_fault(count: int, total: int, packed: int, limits: Limits) -> str:
    """Returns which limit is exceeded, or ""."""
    if count > limits.count:
        return f"has more than {limits.count} members"
    if total > limits.size:
        return f"unpacks to more than {limits.size / 1e9:g} GB"
    if total > 10**6 and total > limits.ratio * packed:
        return f"unpacks to more than {limits.ratio:g} times its size"
    return ""


def _name_fault(name: str) -> str:
    """Returns why the name of a member is refused, or ""."""
    parts = PurePosixPath(name).parts
    if not parts:
        return "has no name"
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "has an absolute name"
    if ".." in parts:
        return "leads out of the folder"
    if "\\" in name or any(ord(letter) < 32 for letter in name):
        return "has a name that is read differently on other systems"
    return next(filter(None, map(name_fault, parts)), "")


def _write(archive: Path, member: _Member, folder: Path) -> None:
    target = folder.joinpath(*PurePosixPath(member.name).parts)
    source = member.open()
    assert source is not None
    temporary = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, temporary.open("wb") as out:
            left = member.size
            while left > 0 and (block := source.read(min(left, _CHUNK))):
                out.write(block)
                left -= len(block)
        if left:
            raise DataError([f"{archive}: {member.name} is truncated; download again"])
        if target.exists() and not filecmp.cmp(target, temporary, shallow=False):
            raise DataError(
                [
                    f"{archive}: {member.name} is in an earlier archive too, with "
                    "other content; prepare the archives separately"
                ]
            )
        temporary.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            [f"{archive}: {member.name} is both a file and a folder; refused"]
        ) from error
