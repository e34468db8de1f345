"""Instruction sets of this machine's processor."""

from functools import cache
from pathlib import Path

INT8_IS_SLOW = (
    "this processor has no int8 dot products (VNNI); the int8 step may be slower here "
    "than the float32 one, and its labels may differ more"
)

# x86: AVX-512 VNNI, AVX2 VNNI and AMX. ARM: dot products.
_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_KEYS = ("flags", "Features")
_CPUINFO = Path("/proc/cpuinfo")


@cache
def computes_int8() -> bool:
    """Returns whether the processor has int8 dot-product instructions.

    OpenVINO reports the INT8 capability on every x86 processor, so the flags are read
    from /proc/cpuinfo. Returns True where that file does not exist (not Linux).
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return True
    lines = (line.partition(":") for line in text.splitlines())
    flags = [set(x.split()) for key, _, x in lines if key.strip() in _KEYS]
    return not flags or bool(_FLAGS & flags[0])
