"""Removes jumps from a source's clock, such as from pauses or counter overflow."""

LONGEST = 1.0
"""Seconds between two frames above which the clock is taken to have jumped."""


class Clock:
    """Turns timestamps into strictly increasing ones with plausible steps.

    If a timestamp goes back, repeats, or is ahead by more than a second and more than
    four times the last step, the last step is used instead.

    Args:
        step: expected seconds between frames.

    Attributes:
        jumps: number of corrected jumps.
    """

    def __init__(self, step: float) -> None:
        self.jumps = 0
        self._step = step
        self._last: float | None = None  # the source's last timestamp
        self._given = 0.0

    def read(self, seconds: float) -> float:
        """Returns the corrected time of the next frame, given the source's time."""
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
