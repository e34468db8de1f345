"""The stack on which the calling thread handles signals."""

import ctypes
import sys
from pathlib import Path


class _Stack(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def is_usable() -> bool:
    """Returns whether a signal can be handled: the stack is in mapped memory.

    If not, Ctrl-C kills the process. Only Linux can tell; elsewhere it is assumed.
    """
    if sys.platform != "linux":
        return True
    stack = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    lines = Path("/proc/self/maps").read_text().splitlines()
    ranges = (line.split()[0] for line in lines)
    bounds = ([int(end, 16) for end in text.split("-")] for text in ranges)
    return not stack.at or any(low <= stack.at < high for low, high in bounds)
