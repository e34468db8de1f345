"""A source's clock without its jumps: recorders are switched off, counters wrap."""

LONGEST = 1.0
"""Seconds from one frame to the next above which a clock has jumped."""


class Clock:
    """Timestamps that only go forward, by steps a source of frames can have made.

    Where a timestamp goes back, repeats, or is further ahead than a second and four
    times the last step, the frame is taken to follow at the step before it.

    Args:
        step: seconds from frame to frame, as far as that is known beforehand.

    Attributes:
        jumps: how many were bridged.
    """

    def __init__(self, step: float) -> None:
        self.jumps = 0
        self._step = step
        self._last: float | None = None  # of the source
        self._given = 0.0

    def read(self, seconds: float) -> float:
        """The time of the next frame, which the source says is at `seconds`."""
        if self._last is None:
            self._given = seconds
        else:
            since = seconds - self._last
            if 0 < since <= max(LONGEST, 4 * self._step):
                self._step = since
            else:
                self.jumps += 1
            self._given += self._step
        self._last = seconds
        return self._given
