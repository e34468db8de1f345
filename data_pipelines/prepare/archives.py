"""Unpacks zip and tar archives from strangers: all members are judged before any.

Refused are names that lead out of the folder, links, devices, encryption, and archives
that would unpack to more than the caps allow.
"""

import bz2
import errno
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
# Bytes that a tar file may have behind its end: zeros, as many as its writer's blocks.
_TAIL = 16 << 20

# What the readers of archives raise on bytes that are none.
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
    """Most that an archive may unpack to.

    Attributes:
        size: bytes in all.
        ratio: unpacked bytes for a byte of the archive; archives that unpack to less
            than a megabyte are exempt.
        count: members.
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
    """Whether the file's name ends as a zip or tar archive's does."""
    return str(path).lower().endswith(_ZIP + _TAR)


def extract(archive: str | Path, folder: str | Path, caps: Limits | None = None) -> int:
    """Unpacks `archive` into `folder`, which may hold other archives' files.

    What macOS leaves in archives (`__MACOSX`, names that begin with a dot) is skipped.
    Rights, owners and times are not taken over.

    Args:
        archive: a zip or tar file, the latter also compressed.
        folder: made if missing.
        caps: the default `Limits()` if not given.

    Returns:
        Number of files written.

    Raises:
        FileNotFoundError: there is no such archive.
        DataError: it is no archive, holds no files, is damaged, or is refused; nothing
            is written then unless the damage is inside a file.
    """
    archive, folder = Path(archive), Path(folder)
    caps = Limits() if caps is None else caps
    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such file")
    try:
        with _opened(archive) as opened:
            members = _judged(archive, opened, caps)
            if not members:
                raise DataError([f"{archive}: holds no files; give another archive"])
            for member in members:
                _write(archive, member, folder)
    except (DataError, WriteError):
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except ValueError as error:  # numbers of a header
        raise _damaged(archive, error) from error
    except OSError as error:
        # The system's errors have a number; the decompressors raise bare ones, and a
        # damaged header may ask for a place before the file.
        if error.errno not in (None, errno.EINVAL):
            place = error.filename or folder
            raise WriteError(f"{place}: {error_text(error)}") from error
        raise _damaged(archive, error) from error
    return len(members)


def _damaged(archive: Path, error: Exception) -> DataError:
    what = " ".join(str(error).split()) or type(error).__name__
    return DataError([f"{archive}: damaged ({what}); download it again"])


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    name = archive.name.lower()
    if name.endswith(_ZIP):
        with zipfile.ZipFile(archive) as opened:
            yield opened
    elif name.endswith(_TAR):
        with _unpacked(archive) as stream:
            guarded: Any = _Guarded(archive, stream)
            with tarfile.open(fileobj=guarded, mode="r:") as opened:
                yield opened
    else:
        kinds = ", ".join(_ZIP + _TAR)
        raise DataError([f"{archive}: not an archive; must be one of {kinds}"])


def _unpacked(archive: Path) -> IO[bytes]:
    """The tar file inside, whatever it is packed with: by content, not by name."""
    with archive.open("rb") as file:
        begin = file.read(6)
    if begin.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(archive))
    if begin.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(archive))
    if begin.startswith(b"\xfd7zXZ"):
        return cast(IO[bytes], lzma.open(archive))
    return archive.open("rb")


class _Guarded:
    """A tar file's bytes, never many at once.

    The reader of tar files takes a header of any size into memory in one piece, though
    the archive unfolds to it from nearly nothing; files are read in chunks.
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
        """Reads to the end, where gzip keeps the checksum of what was read."""
        for _ in range(_TAIL // _CHUNK):
            if not self._stream.read(_CHUNK):
                return
        raise DataError([f"{self._archive}: goes on behind its end; refused"])


def _members(opened: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(opened, zipfile.ZipFile):
        for info in opened.infolist():
            kind, read = _zip_kind(info), partial(opened.open, info)
            # orig_filename: zipfile cuts names at a NUL, which hides their ends.
            yield _Member(info.orig_filename, info.file_size, kind, read)
        return
    for info in opened:
        kind = "file" if info.isfile() else "folder" if info.isdir() else "special"
        if info.issym() or info.islnk():
            kind = "link"
        yield _Member(info.name, info.size, kind, partial(opened.extractfile, info))
    cast(_Guarded, opened.fileobj).finish()


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "encrypted"
    form = stat.S_IFMT(info.external_attr >> 16)
    if form == stat.S_IFLNK:
        return "link"
    if form not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "special"
    return "folder" if info.is_dir() else "file"


def _judged(
    archive: Path, opened: zipfile.ZipFile | tarfile.TarFile, caps: Limits
) -> list[_Member]:
    packed = archive.stat().st_size
    total = 0
    faults: list[str] = []
    files: list[_Member] = []
    names: set[str] = set()
    for count, member in enumerate(_members(opened), start=1):
        total += member.size
        # Judged while listing: the list of a compressed tar is itself unpacked.
        over = _over(count, total, packed, caps)
        if over:
            raise DataError([f"{archive}: {over}; refused"])
        path = PurePosixPath(member.name)
        if member.kind == "folder" and member.name.startswith(".") and not path.parts:
            continue  # "./", the folder itself, of `tar -czf x.tar.gz .`
        wrong = _name_fault(member.name)
        if wrong:
            faults.append(f"{archive}: member {member.name!r} {wrong}; refused")
            continue
        if any(map(is_skipped, path.parts)):
            continue
        if member.kind not in ("file", "folder"):
            what = {"link": "a link", "encrypted": "encrypted"}.get(
                member.kind, "no plain file"
            )
            faults.append(f"{archive}: member {member.name!r} is {what}; refused")
        elif member.kind == "file":
            if str(path) in names:
                faults.append(f"{archive}: member {member.name!r} is twice in it")
            names.add(str(path))
            files.append(member)
    if faults:
        raise DataError(faults)
    return files


def _over(count: int, total: int, packed: int, caps: Limits) -> str:
    if count > caps.count:
        return f"more than {caps.count} members"
    if total > caps.size:
        return f"unpacks to more than {caps.size / 1e9:g} GB"
    if total > 10**6 and total > caps.ratio * packed:
        return f"unpacks to more than {caps.ratio:g} times its size"
    return ""


def _name_fault(name: str) -> str:
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
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, part.open("wb") as out:
            left = member.size
            while left > 0 and (block := source.read(min(left, _CHUNK))):
                out.write(block)
                left -= len(block)
        if left:
            raise DataError([f"{archive}: {member.name} is cut short; download again"])
        if target.exists() and not _same(target, part):
            raise DataError(
                [
                    f"{archive}: {member.name} is in an earlier archive too, with "
                    "other content; prepare the archives one by one"
                ]
            )
        part.replace(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            [f"{archive}: {member.name} is both a file and a folder; refused"]
        ) from error


def _same(first: Path, second: Path) -> bool:
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while block := one.read(_CHUNK):
            if block != other.read(_CHUNK):
                return False
    return True
