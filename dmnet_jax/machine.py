"""What a measurement was made on, and how its processes are started."""

import glob
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dmnet_jax.process import cores

SYSTEM = "the system's"
_TCMALLOC = "/usr/lib/*/libtcmalloc*.so.[0-9]"


def tcmalloc() -> str | None:
    """The library to preload, if the system has it; debugging builds do not count."""
    found = [path for path in sorted(glob.glob(_TCMALLOC)) if "debug" not in path]
    return found[0] if found else None


def environment() -> dict[str, str]:
    """Of a measuring process: this one's, and tcmalloc preloaded if there is one.

    What is preloaded already stays: another allocator can be measured. OpenVINO's TBB
    looks into a library of its own past what is preloaded, and then frees with one
    allocator what came from the other, unless it takes the process for one that is
    instrumented.
    """
    library = os.environ.get("LD_PRELOAD") or tcmalloc()
    preloaded = {"LD_PRELOAD": library} if library else {}
    # Contestants hold the GPU together, so none may reserve most of it.
    shared = {"TBB_ENABLE_SANITIZERS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return {**os.environ, **preloaded, **shared}


def allocator() -> str:
    """The allocator of this process, by the file that is mapped into it."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return "unknown"
    found = re.findall(r"\S*/lib(?:tcmalloc|jemalloc|mimalloc)\S*", maps)
    return Path(found[0]).name if found else SYSTEM


def describe() -> dict[str, Any]:
    """Processor, cores this process may use, allocator and date."""
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "allocator": environment().get("LD_PRELOAD", SYSTEM),
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory() -> int:
    """Bytes, the most that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_gpu_memory() -> int:
    """Bytes, the most that this process has held on its GPU; 0 without one."""
    if jax := sys.modules.get("jax"):
        found = jax.devices()[0].memory_stats() or {}
        return int(found.get("peak_bytes_in_use", 0))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return 0


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
