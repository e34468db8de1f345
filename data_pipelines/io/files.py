"""Files that are complete or absent: written beside their place, then renamed."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteError(ValueError):
    """Something could not be written; one line names the file and says why."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A place to write a file to, which then takes the place of `path`.

        with atomic_write(folder / "results.json") as fresh:
            fresh.write_text(text, encoding="utf-8")

    What was at `path` stays until the new file is on the disk, and if anything goes
    wrong.

    Raises:
        WriteError: it cannot be written: no space, no permission, no folder.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with as_write_error(path):
        try:
            yield fresh
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file, complete or not at all.

    Raises:
        WriteError: as `atomic_write`.
    """
    with atomic_write(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def make_folder(path: str | Path) -> None:
    """Makes a folder and those above it, if they are not there.

    Raises:
        WriteError: it cannot be made.
    """
    with as_write_error(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def check_not_special(path: str | Path) -> None:
    """Before a file that others made is opened: reading a pipe may never end.

    Raises:
        OSError: it is a pipe, a device or a socket.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or device, not a file", str(path))


@contextmanager
def as_write_error(path: str | Path) -> Iterator[None]:
    """Inside, what the system refuses is a `WriteError` that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error_text(error)})") from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Holds a folder, which is made, for one process; the system frees it.

    Yields:
        Whether it is held; False if another process holds it.

    Raises:
        WriteError: it cannot be made.
    """
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two lines its holder may have ended and moved it.
            same = os.fstat(place).st_ino == folder.stat().st_ino
        except OSError:
            same = False
        yield same
    finally:
        os.close(place)


def write_failure(error: BaseException) -> str:
    """The system's reason, if that is why a library failed in writing; else empty."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _UNWRITABLE:
            return error_text(seen)
        for number in _UNWRITABLE:
            if os.strerror(number) in str(seen):
                return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return ""


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def error_text(error: OSError) -> str:
    """The system's reason in words, "No space left on device", without a number."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
