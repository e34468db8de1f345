"""Frames from a thread: every one, or in real time the latest.

A lost camera is looked for again. A thread that fails says so to whoever asks for the
next frame; only a source that came to its end has ended.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from data_pipelines.io.names import shown
from dmnet_jax.video.clock import Clock
from dmnet_jax.video.sources import RATE, Captured, Source, SourceError

POLL = 0.1
"""Seconds after which a wait looks whether it was asked to stop."""


class Timed(NamedTuple):
    """A frame and when it was there, on `time.monotonic`'s clock."""

    captured: Captured
    arrived: float


def tell(text: str) -> None:
    """A line on standard error, at once."""
    print(shown(text), file=sys.stderr, flush=True)


@dataclass
class Reconnecting:
    """A live source that is opened again when it breaks off.

    Waits are 0.5 s, doubled up to 8 s; a frame sets them back. A source that is not
    live just ends.

    Attributes:
        source: the camera.
        attempts: after so many failures in a row it is given up.
        wait: sleeps; returns early, with True, if all is over.
        told: is given a line about each failure that is not the last.
        losses: how often the source broke off, so far.
        connected: whether frames come.
    """

    source: Source
    attempts: int = 8
    wait: Callable[[float], bool | None] = time.sleep
    told: Callable[[str], None] = tell
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
            pause = min(8.0, 0.25 * 2**failures)
            self.told(f"no frames: {reason}; trying again in {pause:g} s")
            if self.wait(pause):
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

    def next(
        self, timeout: float | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> Timed | None:
        """Waits for a frame newer than the one before; None at the end.

        Args:
            timeout: seconds.
            stopping: asked while it waits; True ends the wait as the end does.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            SourceError: the source failed, or was given up.
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
            # Of whatever kind: it is told to the reader, who would wait for ever.
            text = str(error) if isinstance(error, OSError) else repr(error)
            self._error = SourceError(f"reading the source failed: {text}")
            self._error.__cause__ = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _wait_for_turn(self, captured: Captured) -> None:
        """Until a frame of a source that is not live is due."""
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
        # A camera that is being opened does not answer; the thread ends when it does.
        self._thread.join(timeout=1)


class Every(Latest):
    """A thread that reads a source one frame ahead; none is missed, none waited for."""

    def _wait_for_turn(self, captured: Captured) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is None or self._stop.is_set())


def first_frame(
    source: Source, stopping: Callable[[], bool] = lambda: False
) -> Captured | None:
    """A frame, to know the size by; cameras are waited for.

    Args:
        source: to open.
        stopping: asked while it waits; True ends the wait.

    Returns:
        None if it was stopped.

    Raises:
        SourceError: there is none.
    """
    with Every(source, attempts=4) as frames:
        timed = frames.next(stopping=stopping)
    if timed is None and not stopping():
        raise SourceError("the source has no frame")
    return timed and timed.captured


def _closable(frames: Reconnecting) -> Generator[Captured, None, None]:
    """A generator, so that leaving it closes the source at once."""
    yield from frames
