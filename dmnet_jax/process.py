"""Tools for long-running commands: run locks, stop requests and heartbeats."""

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
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class RunInUseError(ValueError):
    """Another process uses the run directory."""


class RunGoneError(ValueError):
    """The run directory was deleted or replaced while it was in use."""


class Stopped(Exception):
    """Raised to end a run after a stop request, once its state is saved."""


class StopRequest:
    """Turns SIGTERM and SIGINT (Ctrl-C) into a flag that loops check.

    The first signal sets `requested`. The loop then finishes its step, saves and exits
    with `exit_code`: 143 after SIGTERM, 130 after SIGINT, 0 without a signal. A second
    signal ends the process immediately with that signal's code, without saving.

        with StopRequest() as stop:
            for step in steps:
                ...
                if stop.requested:
                    break

    Only the main thread may enter the context (ValueError otherwise). On exit, the
    previous signal handlers are restored.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """Exit code of the process."""
        return 0 if self._signal is None else 128 + self._signal

    def request(self) -> None:
        """Requests a stop, as SIGTERM does; used if another process was stopped."""
        if self._signal is None:
            self._signal = signal.SIGTERM

    def __enter__(self) -> "StopRequest":
        for number in _SIGNALS:
            self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        # print() is not reentrant, and this handler may interrupt a print().
        os.write(2, b"stopping after this step; signal again to stop at once\n")


class RunLock:
    """A lock on a run directory, created by `run_lock`."""

    def __init__(self, path: Path, file: IO[str]):
        self._path, self._file = path, file

    def check(self) -> None:
        """Checks that the directory is still the one that was locked.

        Files written to a deleted directory are lost without an error, and a new
        directory in its place may belong to another process.

        Raises:
            RunGoneError: the directory was deleted or replaced.
        """
        try:
            current, locked = self._path.stat(), os.fstat(self._file.fileno())
            same = (current.st_dev, current.st_ino) == (locked.st_dev, locked.st_ino)
        except OSError:
            same = False
        if not same:
            raise RunGoneError(
                f"{self._path.parent}: the run directory was deleted or replaced "
                "during the run, and its contents are lost; start the run again"
            )


@contextmanager
def run_lock(run_dir: str | os.PathLike[str]) -> Iterator[RunLock]:
    """Locks a run directory for one writer. The lock ends with the process.

    Args:
        run_dir: the run directory; created if missing.

    Raises:
        RunInUseError: another process holds the lock; names its id and host.
        ValueError: the directory is not writable.
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


def format_duration(seconds: float) -> str:
    """Formats a duration as 2:03 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


FIRST_REPORT = 15.0
"""Seconds until the first report of `heartbeat`. Each interval doubles the time."""


@contextmanager
def heartbeat(
    report: Callable[[str], None], activity: str
) -> Iterator[Callable[[], None]]:
    """Reports from a thread, at growing intervals, that an activity continues.

    Args:
        report: called with a line of text.
        activity: name of the activity, such as "compiling".

    Yields:
        A function that stops the reports before the context ends.
    """
    stopped, start = threading.Event(), time.monotonic()

    def run() -> None:
        interval = FIRST_REPORT
        while not stopped.wait(interval):
            elapsed = time.monotonic() - start
            # A closed output stream must not end the process from this thread.
            with contextlib.suppress(OSError, ValueError):
                report(f"{activity}: {elapsed:.0f} s so far")
            interval = elapsed

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield stopped.set
    finally:
        stopped.set()
        thread.join()
