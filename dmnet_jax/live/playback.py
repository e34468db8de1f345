"""Plays a source for a viewer, who may pause it, seek in it, or open another one."""

import dataclasses
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from dmnet_jax.video.capture import Every, Latest, Timed
from dmnet_jax.video.sources import RATE, Captured, Source

_POLL = 0.05
"""Seconds between two looks at what the viewer wants."""


class Shot(NamedTuple):
    """A frame that is due.

    Attributes:
        captured: the frame.
        seconds: since the first frame of the source.
        arrived: when it arrived, on the clock of `time.monotonic`; None for a file.
        begins: whether it does not follow the shot before: the first one of a source,
            or of a file that starts again, or after a seek.
        dropped: frames of a camera that were not shown so far.
    """

    captured: Captured
    seconds: float
    arrived: float | None
    begins: bool
    dropped: int


class Playback:
    """The frames of a source, when they are due.

    A camera is followed in real time: only its latest frame is shown. A file is played
    in a loop with every frame, at its frame rate or slower.

    All methods but `shots` may be called from any thread.

    Args:
        source: the first source.

    Attributes:
        source: the present source.
        duration: its length in seconds. None: no known end, and no seeking in it.
        paused: whether to hold the frame.
    """

    def __init__(self, source: Source) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._start, self._version = 0.0, 0
        self.source = source
        self.duration: float | None = getattr(source, "duration", None)
        self.paused = False

    def seek(self, seconds: float) -> None:
        """Continues at a time of the source.

        Raises:
            ValueError: the source has no such time.
        """
        with self._lock:
            if self.duration is None or not 0 <= seconds <= self.duration:
                raise ValueError(f"there is no second {seconds} in this source")
            self._start, self._version = float(seconds), self._version + 1

    def open(self, source: Source) -> None:
        """Continues with the start of another source.

        Raises:
            SourceError: it cannot be opened.
        """
        duration = getattr(source, "duration", None)
        with self._lock:
            self.source, self.duration = source, duration
            self._start, self._version = 0.0, self._version + 1

    def stop(self) -> None:
        """Ends `shots`."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def shots(self) -> Iterator[Shot | None]:
        """Yields frames until stopped, or until a live source ends.

        Yields None about every 50 ms in which no frame is due, so that the caller can
        do other work. The first frame after a seek is shown even if paused.

        Raises:
            SourceError: the source cannot be read.
        """
        while not self.stopped:
            with self._lock:
                source, start, version = self.source, self._start, self._version
            begins, origin = True, 0.0
            frames = self._read(source, start)
            for timed, dropped in frames:
                if self.stopped or version != self._version:
                    break
                if timed is None:
                    yield None
                else:
                    captured = timed.captured
                    if begins:  # a video's clock need not start at 0
                        origin = captured.seconds - start
                    arrived = timed.arrived if source.live else None
                    seconds = captured.seconds - origin
                    yield Shot(captured, seconds, arrived, begins, dropped)
                    begins = False
                while self.paused and not begins and version == self._version:
                    if self._stop.wait(_POLL):
                        return
                    yield None
            else:
                if source.live:
                    return
                with self._lock:
                    if version == self._version:
                        self._start = 0.0
            frames.close()  # closes the source before another one is opened

    def _read(self, source: Any, start: float) -> Generator[tuple[Timed | None, int]]:
        """Yields frames when they are due, and the number of frames dropped so far."""
        due, period = time.monotonic(), 1 / (source.rate or RATE)
        if start:
            source = dataclasses.replace(source, start=start)
        with Latest(source) if source.live else Every(source) as frames:
            while True:
                try:
                    timed = frames.next(_POLL, self._stop.is_set)
                except TimeoutError:
                    yield None, 0
                    continue
                if timed is None:
                    return
                if not source.live:
                    self._stop.wait(max(0.0, due - time.monotonic()))
                    due = max(due + period, time.monotonic())
                yield timed, frames.dropped
