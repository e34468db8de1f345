"""What a measurement was made on, and how its processes are started."""

import glob
import os
import platform
import resource
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_TCMALLOC = "/usr/lib/*/libtcmalloc*.so.[0-9]"


def tcmalloc() -> str | None:
    """The library to preload, if the system has it; debugging builds do not count."""
    found = [path for path in sorted(glob.glob(_TCMALLOC)) if "debug" not in path]
    return found[0] if found else None


def environment() -> dict[str, str]:
    """Of a measuring process: this one's, and tcmalloc preloaded if there is one."""
    library = tcmalloc()
    return {**os.environ, **({"LD_PRELOAD": library} if library else {})}


def describe() -> dict[str, Any]:
    """Processor, cores this process may use, allocator and date."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "allocator": tcmalloc() or "the system's",
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory() -> int:
    """Bytes, the most that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def product_peak(multiply: Callable[[], Any], size: int) -> float:
    """Multiply-adds a second of `multiply`, a product of two [size, size] matrices.

    The best of ten: what the machine can do at most.
    """
    multiply()
    return size**3 / min(seconds(multiply) for _ in range(10))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
