"""Frames in real time: the latest one wins, and a lost camera is looked for again."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from data_pipelines.images import DataError
from dmnet_jax.streaming.sources import Captured, Source, SourceError


class Timed(NamedTuple):
    """A frame and when it was there, on `time.monotonic`'s clock."""

    captured: Captured
    arrived: float


@dataclass
class Reconnecting:
    """A live source that is opened again when it breaks off.

    Waits are 0.5 s, doubled up to 8 s; a frame sets them back. A source that is not
    live just ends.

    Attributes:
        source: the camera.
        attempts: after so many failures in a row it is given up.
        wait: sleeps; returns early, with True, if all is over.
        losses: how often the source broke off, so far.
        connected: whether frames come.
    """

    source: Source
    attempts: int = 8
    wait: Callable[[float], bool | None] = time.sleep
    losses: int = field(default=0, init=False)
    connected: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[Captured]:
        """Frames; their names count on over losses.

        Raises:
            SourceError: the source is not live and failed, or was given up.
        """
        failures = count = 0
        while True:
            reason = "it ended"
            try:
                for captured in self.source:
                    failures, self.connected = 0, True
                    name = f"{count:06}" if self.source.live else captured.name
                    yield captured._replace(name=name)
                    count += 1
                if not self.source.live:
                    return
            except (SourceError, OSError) as error:
                if not self.source.live:
                    raise
                reason = str(error)
            self.losses += self.connected
            self.connected = False
            failures += 1
            if failures >= self.attempts:
                raise SourceError(
                    f"given up after {failures} attempts in a row; the last: {reason}"
                )
            if self.wait(min(8.0, 0.25 * 2**failures)):
                return


class Latest:
    """A thread that reads a source in real time and keeps the newest frame alone.

    Sources that are not live are played at their rate. Whoever is slow gets the latest
    frame and misses those between; nothing queues up.

        with Latest(source) as latest:
            while (timed := latest.next()) is not None:
                ...

    Args:
        source: to read.
        attempts: of `Reconnecting`.
    """

    def __init__(self, source: Source, attempts: int = 8) -> None:
        self._stop = threading.Event()
        self._frames = Reconnecting(source, attempts, self._stop.wait)
        self._changed = threading.Condition()
        self._newest: Timed | None = None
        self._error: Exception | None = None
        self._done = False
        self.captured = self.dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)

    @property
    def losses(self) -> int:
        """How often the camera was lost."""
        return self._frames.losses

    @property
    def connected(self) -> bool:
        """Whether frames come."""
        return self._frames.connected

    def next(self, timeout: float | None = None) -> Timed | None:
        """Waits for a frame newer than the one before; None at the end.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            SourceError: the source failed, or was given up.
        """
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._newest is not None or self._done, timeout
            )
            if not there:
                raise TimeoutError(f"no frame for {timeout} s")
            newest, self._newest = self._newest, None
            if newest is None and self._error is not None:
                raise self._error
            return newest

    def _read(self) -> None:
        source = self._frames.source
        began, first = time.monotonic(), None
        try:
            for captured in self._frames:
                if not source.live:
                    first = captured.seconds if first is None else first
                    due = began + captured.seconds - first
                    self._stop.wait(max(0.0, due - time.monotonic()))
                if self._stop.is_set():
                    break
                with self._changed:
                    self.captured += 1
                    self.dropped += self._newest is not None
                    self._newest = Timed(captured, time.monotonic())
                    self._changed.notify_all()
        except (SourceError, DataError, OSError) as error:
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def __enter__(self) -> "Latest":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
