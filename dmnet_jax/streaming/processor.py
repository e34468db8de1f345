"""What this machine's processor computes fast."""

from functools import cache
from pathlib import Path

INT8_IS_SLOW = (
    "this processor has no int8 dot products (VNNI); the int8 step may be slower here "
    "than the float32 one, and its labels may differ more"
)

# Of x86: AVX-512 VNNI, its AVX2 form, AMX; of ARM: dot products.
_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_KEYS = ("flags", "Features")
_CPUINFO = Path("/proc/cpuinfo")


@cache
def computes_int8() -> bool:
    """Whether the processor has instructions for products of int8.

    OpenVINO's own list of capabilities names INT8 on every x86 processor, so the
    system's is read; where there is none (not Linux), the answer is yes.
    """
    try:
        text = _CPUINFO.read_text()
    except OSError:
        return True
    lines = (line.partition(":") for line in text.splitlines())
    flags = [set(x.split()) for key, _, x in lines if key.strip() in _KEYS]
    return not flags or bool(_FLAGS & flags[0])
