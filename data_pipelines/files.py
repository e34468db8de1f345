"""Files that are complete or absent: written beside their place, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteError(ValueError):
    """Something could not be written; one line names the file and says why."""


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A place to write a file to, which then takes the place of `path`.

        with replaced(folder / "results.json") as fresh:
            fresh.write_text(text, encoding="utf-8")

    What was at `path` stays until the new file is on the disk, and if anything goes
    wrong.

    Raises:
      WriteError: it cannot be written: no space, no permission, no folder.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with naming(path):
        try:
            yield fresh
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Inside, what the system refuses is a `WriteError` that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({reason(error)})") from error


def reason(error: OSError) -> str:
    """The system's reason in words, "No space left on device", without a number."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__
