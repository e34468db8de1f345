"""A progress bar for terminals."""

import sys
import time
from typing import TextIO

_WIDTH = 30
# Minimum number of seconds between updates.
_INTERVAL = 0.2


class ProgressBar:
    """Shows a bar with the remaining time if `stream` is a terminal, else nothing.

    Args:
        stream: the output; None: standard error.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = sys.stderr if stream is None else stream
        self._visible = False
        self._start = self._last = 0.0

    def show(self, done: int, total: int) -> None:
        """Updates the bar, at most a few times per second."""
        if not self._stream.isatty():
            return
        now = time.monotonic()
        self._start = self._start or now
        if now - self._last < _INTERVAL and done < total:
            return
        self._last = now
        # The clock starts with the first frame, which is therefore not timed.
        left = (now - self._start) / max(done - 1, 1) * (total - done)
        filled = _WIDTH * done // total
        self._stream.write(
            f"\r{'#' * filled}{'.' * (_WIDTH - filled)} {done}/{total} frames, "
            f"{int(left) // 60}:{int(left) % 60:02d} left \x1b[K"
        )
        self._stream.flush()
        self._visible = True

    def clear(self) -> None:
        """Removes the bar."""
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._visible = False

    def log(self, line: str) -> None:
        """Prints a line on standard output, above the bar."""
        self.clear()
        print(line, flush=True)
