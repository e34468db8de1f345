"""Atomic writing of files, folder locks, and errors of the file system in one line."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteError(ValueError):
    """A file could not be written; the message is one line with its path and reason."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields the path of a temporary file that replaces `path` when the block ends.

        with atomic_write(folder / "results.json") as temporary:
            temporary.write_text(text, encoding="utf-8")

    An existing file is kept until the new one is on disk, and if an exception occurs.

    Raises:
        WriteError: the file cannot be written, for example because the disk is full,
            permission is denied, or the folder does not exist.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with as_write_error(path):
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 file atomically.

    Raises:
        WriteError: as for `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: str | Path) -> None:
    """Creates a folder and its missing parents.

    Raises:
        WriteError: the folder cannot be created.
    """
    with as_write_error(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def check_not_special(path: str | Path) -> None:
    """Checks that a path is not a special file, because reading a pipe may never end.

    Raises:
        OSError: the path is a pipe, a device or a socket.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe or device, not a file", str(path))


@contextmanager
def as_write_error(path: str | Path) -> Iterator[None]:
    """Converts an `OSError` raised in the block to a `WriteError` with the path."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error_text(error)})") from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Locks a folder for one process, creating it if necessary.

    The system releases the lock when the process ends.

    Yields:
        Whether the lock was acquired; False if another process holds it.

    Raises:
        WriteError: the folder cannot be created.
    """
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A previous holder may have renamed the folder after it was opened here.
            locked = os.fstat(descriptor).st_ino == folder.stat().st_ino
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def write_failure(error: BaseException) -> str:
    """Returns why the system refused a write, or "" if `error` has another cause.

    The causes of `error` are searched too, because libraries wrap system errors.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _WRITE_ERRNOS:
            return error_text(cause)
        for number in _WRITE_ERRNOS:
            if os.strerror(number) in str(cause):
                return os.strerror(number)
        cause = cause.__cause__ or cause.__context__
    return ""


_WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def error_text(error: OSError) -> str:
    """Returns the message without the number, such as "No space left on device"."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
