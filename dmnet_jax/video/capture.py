"""Background capture of frames: every frame, or the latest one in real time.

A lost camera is reconnected. Errors in the thread are raised to the reader at its next
request; only the real end of a source ends the iteration.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from data_pipelines.io.names import printable
from dmnet_jax.video.clock import Clock
from dmnet_jax.video.sources import RATE, Captured, Source, SourceError

POLL = 0.1
"""Seconds between checks whether a wait should stop."""


class Timed(NamedTuple):
    """A frame and its arrival time on the clock of `time.monotonic`."""

    captured: Captured
    arrived: float


def tell(text: str) -> None:
    """Prints a line to standard error and flushes it."""
    print(printable(text), file=sys.stderr, flush=True)


@dataclass
class Reconnecting:
    """Reopens a live source when its connection is lost.

    It waits 0.5 s before the first retry, then twice as long each time, up to 8 s; a
    frame resets the delay. A source that is not live is not reopened.

    Attributes:
        source: the source.
        attempts: number of failures in a row after which to give up.
        wait: function that sleeps; returns True early if capture should stop.
        report: called with a message for each failure except the last.
        losses: number of lost connections so far.
        connected: whether frames are arriving.
    """

    source: Source
    attempts: int = 8
    wait: Callable[[float], bool | None] = time.sleep
    report: Callable[[str], None] = tell
    losses: int = field(default=0, init=False)
    connected: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[Captured]:
        """Yields frames; the numbering continues after lost connections.

        Raises:
            SourceError: a source that is not live failed, or all attempts failed.
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
                    f"gave up after {failures} failed attempts in a row; the last: "
                    f"{reason}"
                )
            pause = min(8.0, 0.25 * 2**failures)
            self.report(f"no frames: {reason}; trying again in {pause:g} s")
            if self.wait(pause):
                return


class Latest:
    """Reads a source in a thread in real time and keeps only the newest frame.

    Sources that are not live are played at their frame rate. A slow reader gets the
    latest frame and misses those in between; there is no queue.

        with Latest(source) as latest:
            while (timed := latest.next()) is not None:
                ...

    Args:
        source: the source to read.
        attempts: see `Reconnecting`.
    """

    def __init__(self, source: Source, attempts: int = 8) -> None:
        self._stop = threading.Event()
        self._frames = Reconnecting(source, attempts, self._stop.wait, self._report)
        self._changed = threading.Condition()
        self._newest: Timed | None = None
        self._error: Exception | None = None
        self._done = False
        self.captured = self.dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)

    @property
    def losses(self) -> int:
        """Number of lost connections."""
        return self._frames.losses

    @property
    def connected(self) -> bool:
        """Whether frames are arriving."""
        return self._frames.connected

    def next(
        self, timeout: float | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> Timed | None:
        """Waits for a frame newer than the last one; returns None at the end.

        Args:
            timeout: maximum seconds to wait. None: no limit.
            stopping: polled while waiting; if it returns True, None is returned.

        Raises:
            TimeoutError: no frame arrived within `timeout` seconds.
            SourceError: the source failed, or all attempts to reconnect failed.
        """
        began = time.monotonic()
        with self._changed:
            while self._newest is None and not self._done:
                if stopping():
                    return None
                left = POLL
                if timeout is not None:
                    left = min(POLL, began + timeout - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"no frame for {timeout} s")
                self._changed.wait(left)
            newest, self._newest = self._newest, None
            self._changed.notify_all()
            if newest is None and self._error is not None:
                raise self._error
            return newest

    def _report(self, text: str) -> None:
        # The thread may outlive the reader while it waits for a camera.
        if not self._stop.is_set():
            tell(text)

    def _read(self) -> None:
        try:
            with contextlib.closing(_closable(self._frames)) as frames:
                for captured in frames:
                    self._wait_for_turn(captured)
                    if self._stop.is_set():
                        break
                    self._give(captured)
        except SourceError as error:
            self._error = error
        except Exception as error:
            # Any error is passed on to the reader, who would otherwise wait forever.
            text = str(error) if isinstance(error, OSError) else repr(error)
            self._error = SourceError(f"reading the source failed: {text}")
            self._error.__cause__ = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _wait_for_turn(self, captured: Captured) -> None:
        """Waits until a frame is due, for sources that are not live."""
        source, now = self._frames.source, time.monotonic()
        if source.live:
            return
        if not self.captured:
            self._clock = Clock(1 / (source.rate or RATE))
            self._lead = self._clock.read(captured.seconds) - now
        else:
            due = self._clock.read(captured.seconds) - self._lead
            self._stop.wait(max(0.0, due - now))

    def _give(self, captured: Captured) -> None:
        with self._changed:
            self.captured += 1
            self.dropped += self._newest is not None
            self._newest = Timed(captured, time.monotonic())
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        # A camera that is being opened blocks; the thread then ends later by itself.
        self._thread.join(timeout=1)


class Every(Latest):
    """Reads a source in a thread one frame ahead, without dropping or pacing frames."""

    def _wait_for_turn(self, captured: Captured) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is None or self._stop.is_set())


def first_frame(
    source: Source, stopping: Callable[[], bool] = lambda: False
) -> Captured | None:
    """Reads the first frame of a source, to get its size; waits for cameras.

    Args:
        source: the source to open.
        stopping: polled while waiting; if it returns True, the wait ends.

    Returns:
        The frame, or None if stopped.

    Raises:
        SourceError: the source has no frame.
    """
    with Every(source, attempts=4) as frames:
        timed = frames.next(stopping=stopping)
    if timed is None and not stopping():
        raise SourceError("the source has no frame")
    return timed and timed.captured


def _closable(frames: Reconnecting) -> Generator[Captured, None, None]:
    """Wraps the frames in a generator, so that closing it closes the source at once."""
    yield from frames
