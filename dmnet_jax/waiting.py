"""Signs of life while nothing else can be said: compiling takes minutes."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

FIRST = 15.0
"""Seconds until the first sign; each next one takes twice as long."""


@contextlib.contextmanager
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
