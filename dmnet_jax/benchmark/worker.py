"""Entry point of a benchmark worker process.

    python -m dmnet_jax.benchmark.worker KIND CASE.json

The worker prints JSON lines: first a report of the preparation, then the measurements
of a turn for each line of input, and its peak memory at the end of the input. Workers
of this project write variables and outputs next to the case; the others are built from
these variables and compared with these outputs.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

from dmnet_jax.benchmark.case import Case
from dmnet_jax.benchmark.live_case import LiveCase
from dmnet_jax.machine import peak_gpu_memory, peak_memory

# Kind of worker -> (type of its case, module with its `prepare`).
KINDS = {
    "jax training": (Case, "jax_training"),
    "torch training": (Case, "torch_dmnet"),
    "jax": (LiveCase, "jax_live"),
    "jax checks": (LiveCase, "gpu_checks"),
    **{
        kind: (LiveCase, "torch_live")
        for kind in ("torch", "torch.compile", "authors", "onnxruntime", "openvino")
    },
    **{
        kind: (LiveCase, "openvino_live")
        for kind in ("export", "export-bf16", "export-int8")
    },
}


def main() -> int:
    kind, path = sys.argv[1], Path(sys.argv[2])
    # Compilers and runtimes print to standard output, which is reserved for replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case_type, module = KINDS[kind]
    fields = json.loads(path.read_text())
    case = case_type(**{**fields, "size": tuple(fields["size"])})
    prepare = import_module(f"dmnet_jax.benchmark.{module}").prepare
    report, turn = prepare(case, path.parent, kind)
    print(json.dumps(report), file=replies, flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), file=replies, flush=True)
    memory = {"memory": peak_memory(), "gpu_memory": peak_gpu_memory()}
    print(json.dumps(memory), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
