"""The machine that a measurement runs on, and the environment of its processes."""

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
"""Name in reports of the C library's allocator."""

_TCMALLOC = "/usr/lib/*/libtcmalloc*.so.[0-9]"


def find_tcmalloc() -> str | None:
    """Returns the path of the system's tcmalloc, other than debug builds, or None."""
    paths = [path for path in sorted(glob.glob(_TCMALLOC)) if "debug" not in path]
    return paths[0] if paths else None


def environment() -> dict[str, str]:
    """Returns the environment variables of a process that is measured.

    They are those of this process, with tcmalloc preloaded if it is installed. If
    LD_PRELOAD is set already, it is kept, so that other allocators can be measured.
    """
    library = os.environ.get("LD_PRELOAD") or find_tcmalloc()
    preload = {"LD_PRELOAD": library} if library else {}
    settings = {
        # OpenVINO's TBB resolves malloc in its own library and not in the preloaded
        # one, and then frees memory with the wrong allocator. With this variable it
        # assumes a sanitizer and does not do so.
        "TBB_ENABLE_SANITIZERS": "1",
        # Processes share the GPU, so none may reserve most of its memory.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    return {**os.environ, **preload, **settings}


def allocator() -> str:
    """Returns the name of the allocator library that is mapped into this process."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return "unknown"
    paths = re.findall(r"\S*/lib(?:tcmalloc|jemalloc|mimalloc)\S*", maps)
    return Path(paths[0]).name if paths else SYSTEM


def describe() -> dict[str, Any]:
    """Returns the CPU's name, number of usable cores, allocator and date."""
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "allocator": environment().get("LD_PRELOAD", SYSTEM),
        "date": datetime.now(UTC).date().isoformat(),
    }


def peak_memory() -> int:
    """Returns the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_gpu_memory() -> int:
    """Returns the peak GPU memory of this process in bytes; 0 without a GPU."""
    if jax := sys.modules.get("jax"):
        stats = jax.devices()[0].memory_stats() or {}
        return int(stats.get("peak_bytes_in_use", 0))
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return 0


def time_call(call: Callable[[], Any]) -> float:
    """Returns the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_matmul_rate(multiply: Callable[[], Any], size: int) -> float:
    """Returns the multiply-adds per second of a matrix product, the best of ten runs.

    Args:
        multiply: computes the product of two [size, size] matrices.
        size: size of the matrices.
    """
    multiply()
    return size**3 / min(time_call(multiply) for _ in range(10))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()
