"""How far a long run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

_WIDTH = 30
_EVERY = 0.2


class ProgressBar:
    """A bar with the time that is left, if `stream` is a terminal; else nothing.

    Args:
        stream: where it is drawn; standard error if not given.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._drawn = False
        self._begun = self._last = 0.0

    def show(self, done: int, total: int) -> None:
        """Draws the bar, a few times a second at most."""
        if not self._stream.isatty():
            return
        now = time.monotonic()
        self._begun = self._begun or now
        if now - self._last < _EVERY and done < total:
            return
        self._last = now
        # The first frame starts the clock, so it is not among those timed.
        left = (now - self._begun) / max(done - 1, 1) * (total - done)
        filled = _WIDTH * done // total
        self._stream.write(
            f"\r{'#' * filled}{'.' * (_WIDTH - filled)} {done}/{total} frames, "
            f"{int(left) // 60}:{int(left) % 60:02d} left \x1b[K"
        )
        self._stream.flush()
        self._drawn = True

    def clear(self) -> None:
        """Takes the bar away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def log(self, line: str) -> None:
        """Prints a line on standard output, above the bar."""
        self.clear()
        print(line, flush=True)
