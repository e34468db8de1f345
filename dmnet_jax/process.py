"""A command as a process: one writer a run directory, stopping it, signs of life."""

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def cores() -> int:
    """CPU cores that this process may use; where that is not told, all there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class RunInUseError(ValueError):
    """Another process writes to this run directory."""


class RunGoneError(ValueError):
    """The run directory was deleted, or replaced by another, while it was in use."""


class Stopped(Exception):
    """The run ends here, as it was asked to; all it did is saved."""


class StopRequest:
    """Turns SIGTERM and SIGINT (Ctrl-C) into a flag the training loop looks at.

    The first signal sets `requested`; the loop finishes its step, saves and exits with
    `exit_code`: 143 after SIGTERM, 130 after SIGINT, 0 if nothing came. A second signal
    ends the process at once with that signal's code, saving nothing.

        with StopRequest() as stop:
            for step in steps:
                ...
                if stop.requested:
                    break

    Only the main thread may enter it (ValueError otherwise). Leaving it puts the
    former handlers back.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._former: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        return 0 if self._signal is None else 128 + self._signal

    def request(self) -> None:
        """As if SIGTERM had come: another process of the job was asked to stop."""
        if self._signal is None:
            self._signal = signal.SIGTERM

    def __enter__(self) -> "StopRequest":
        for number in _SIGNALS:
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        # print() is not safe inside a handler that may interrupt a print.
        os.write(2, b"stopping after this step; signal again to stop at once\n")


class RunLock:
    """A run directory that is held; made by `run_lock`."""

    def __init__(self, path: Path, file: IO[str]):
        self._path, self._file = path, file

    def check(self) -> None:
        """Makes sure that the directory is the one that was locked.

        What is written into a deleted directory is lost without an error, and a new
        one in its place may be another process's.

        Raises:
            RunGoneError: it is not.
        """
        try:
            now, held = self._path.stat(), os.fstat(self._file.fileno())
            same = (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)
        except OSError:
            same = False
        if not same:
            raise RunGoneError(
                f"{self._path.parent}: the run directory was deleted or replaced while "
                "the run went on, and what was saved in it is gone; begin again"
            )


@contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[RunLock]:
    """Holds a run directory for one writer; the system frees it when a process dies.

    Args:
        run_dir: the run's folder; made if missing.

    Raises:
        RunInUseError: another process holds it; names its id and machine.
        ValueError: the directory cannot be written to.
    """
    path = Path(run_dir) / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise RunInUseError(
                f"{run_dir}: in use by {holder}; "
                "stop it or choose another run directory"
            ) from error
        try:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror})") from error
        yield RunLock(path, lock)


FIRST = 15.0
"""Seconds until the first sign; each next one takes twice as long."""


@contextmanager
def waiting(say: Callable[[str], None], what: str) -> Iterator[Callable[[], None]]:
    """Says now and then that something still goes on, from a thread of its own.

    Args:
        say: prints a line.
        what: goes on, such as "compiling".

    Yields:
        A call that ends it before the block does.
    """
    over, began = threading.Event(), time.monotonic()

    def signs() -> None:
        pause = FIRST
        while not over.wait(pause):
            pause = time.monotonic() - began
            # A reader of the output that has gone away is no concern of this thread.
            with contextlib.suppress(OSError, ValueError):
                say(f"{what}: {pause:.0f} s so far")

    thread = threading.Thread(target=signs, name="signs of life", daemon=True)
    thread.start()
    try:
        yield over.set
    finally:
        over.set()
        thread.join()
