"""How long a frame of live video takes, and what bounds it.

    python -m dmnet_jax.benchmark
    python -m dmnet_jax.benchmark --streams 1 2 4 8 --dtypes float32 bfloat16 --out DIR
    python -m dmnet_jax.benchmark --streams 1 4 16 64 --in-flight 1 3  # on a GPU
    python -m dmnet_jax.benchmark --peers
    python -m dmnet_jax.benchmark --peers export export-bf16 export-int8
    python -m dmnet_jax.benchmark training --help

The streaming step of DMNet from a frame in host memory to its labels there. With
--peers, which needs the extra of that name, other runtimes take turns with it on the
same frames, after their labels, scores and decisions have been seen to be the same; and
our own export in OpenVINO, also in bfloat16 and int8, with what those cost in mIoU.
Everything runs in a separate process, with as many threads as this one has cores
(`taskset` sets them) and the same allocator; where CUDA is, JAX and PyTorch use it.
`training` measures training steps. For research use; not a medical device.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from data_pipelines.command_line import exit_with_error, parse_flags
from data_pipelines.io.environment import install_command
from dmnet_jax import machine
from dmnet_jax.benchmark import live_report
from dmnet_jax.benchmark.live_case import LiveCase
from dmnet_jax.benchmark.process import Worker

Peer = Literal[
    "torch",
    "torch.compile",
    "authors",
    "onnxruntime",
    "openvino",
    "export",
    "export-bf16",
    "export-int8",
]
# kind of contestant: the packages it needs
PEERS: dict[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "torch.compile": ("torch",),
    "authors": ("torch",),
    "onnxruntime": ("torch", "onnxruntime"),
    "openvino": ("torch", "openvino"),
    "export": ("onnx", "openvino"),
    "export-bf16": ("onnx", "openvino"),
    "export-int8": ("onnx", "openvino", "nncf"),
}
# Contestants that round: their differences are reported, and none is refused.
ROUNDING = ("export-bf16", "export-int8")
# Labels may differ where two classes are as likely as each other.
TOLERANCE = {"labels": 1e-3, "confidence": 1e-4, "distance": 1e-4, "admitted": 0.0}
# A GPU rounds factors to 10 bits (TF32), in XLA and, as we set it, in PyTorch.
ROUNDED = {"labels": 1e-2, "confidence": 1e-2, "distance": 1e-2, "admitted": 0.0}


def measure(
    cases: Sequence[LiveCase],
    peers: Sequence[str],
    folder: Path,
    rounds: int,
    at_once: bool = False,
) -> list[dict[str, Any]]:
    """One row a contestant of one size; all take a turn in every round.

    The first case is the reference: float32, one stream. `at_once` prepares all others
    together: faster where there are many cores, but their compile times mean less.
    """
    contestants = [("jax", case) for case in cases]
    contestants += [(kind, cases[0]) for kind in peers]
    rows: list[dict[str, Any]] = []
    workers: list[Worker | None] = []
    # The first one leaves the files that the others are made of.
    batches = [contestants[:1], contestants[1:]]
    if not at_once:
        batches = [[contestant] for contestant in contestants]
    try:
        for batch in batches:
            _progress(f"preparing {', '.join(kind for kind, _ in batch)}")
            on_cpu = not rows or rows[0].get("platform", "cpu") == "cpu"
            tolerance = TOLERANCE if on_cpu else ROUNDED
            with ThreadPoolExecutor(max(1, len(batch))) as pool:
                start = partial(_start, folder=folder, tolerance=tolerance)
                started = list(pool.map(start, *zip(*batch, strict=True)))
            for (kind, case), (worker, failed) in zip(batch, started, strict=True):
                row = {**vars(case), "contestant": kind, "turns": []}
                report = worker.report if worker else {"failed": failed}
                rows.append({**row, **report})
                workers.append(worker)
        for turn in range(rounds):
            _progress(f"round {turn + 1} of {rounds}")
            order = range(len(rows)) if turn % 2 == 0 else reversed(range(len(rows)))
            for k in order:
                if worker := workers[k]:
                    rows[k]["turns"].append(worker.turn())
        for row, worker in zip(rows, workers, strict=True):
            if worker:
                row["memory_bytes"] = worker.close()
                row["gpu_bytes"] = worker.gpu_memory
    finally:
        for worker in workers:
            if worker:
                worker.stop()
    return rows


def _progress(what: str) -> None:
    """Preparing takes minutes; standard output is the report's."""
    print(what, file=sys.stderr, flush=True)


def _start(
    kind: str, case: LiveCase, folder: Path, tolerance: Mapping[str, float]
) -> tuple[Worker | None, str]:
    """A contestant that is ready, or why there is none."""
    missing = [name for name in PEERS.get(kind, ()) if find_spec(name) is None]
    if missing:
        return None, f"{' and '.join(missing)} not installed"
    try:
        worker = Worker(kind, case, folder)
    except RuntimeError as error:
        return None, str(error)
    if left_out := worker.report.get("left_out"):
        worker.stop()
        return None, left_out
    differences = worker.report.get("differences", {}) if kind not in ROUNDING else {}
    wrong = [
        name for name, value in differences.items() if not value <= tolerance[name]
    ]
    if not wrong:
        return worker, ""
    worker.stop()
    details = ", ".join(f"{name} by {differences[name]:.1e}" for name in wrong)
    return None, f"refused: its outputs differ ({details})"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        sizes: Heights and widths of a frame.
        streams: Numbers of streams in a step.
        dtypes: Types of the network's features.
        in_flight: Numbers of frames that are under way at once.
        rounds: Turns of each contestant.
        peers: Measure others as well; without names, all of them.
        out: Folder for live.md and live.json.
    """

    sizes: tuple[tuple[int, int], ...] = ((512, 640),)
    streams: tuple[int, ...] = (1,)
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32",)
    in_flight: tuple[int, ...] = (1,)
    rounds: int = 9
    peers: tuple[Peer, ...] | None = None
    out: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv, Flags(), prog="python -m dmnet_jax.benchmark", description=__doc__ or ""
    )
    lists = flags.sizes, flags.streams, flags.dtypes, flags.in_flight
    if not all(lists) or min(flags.rounds, *flags.streams, *flags.in_flight) < 1:
        exit_with_error("--rounds, --streams and --in-flight must be at least 1")
    if fault := size_fault(*flags.sizes):
        exit_with_error(f"--sizes {fault}")
    if flags.peers == () and find_spec("torch") is None:
        exit_with_error(f"--peers needs PyTorch: {install_command('peers')}")
    result: dict[str, Any] = {
        "command": " ".join(["python -m dmnet_jax.benchmark", *(argv or [])]),
        "machine": machine.describe(),
        "rows": [],
    }
    for shape in flags.sizes:
        cases = [LiveCase(shape)] + [
            LiveCase(shape, streams, dtype, in_flight)
            for dtype in flags.dtypes
            for streams in flags.streams
            for in_flight in flags.in_flight
        ]
        cases = list(dict.fromkeys(cases))  # the reference is measured once
        peers = PEERS if flags.peers == () else flags.peers or ()
        with tempfile.TemporaryDirectory() as name:
            result["rows"] += measure(cases, [*peers], Path(name), flags.rounds)
    text = live_report.report(result)
    print(text)
    if flags.out:
        flags.out.mkdir(parents=True, exist_ok=True)
        (flags.out / "live.md").write_text(text + "\n")
        (flags.out / "live.json").write_text(json.dumps(result, indent=1) + "\n")
    failed = [row["failed"] for row in result["rows"] if "failed" in row]
    # What is not installed or not computed here is no mistake; what breaks is.
    wrong = [
        why
        for why in failed
        if not why.endswith("not installed") and not why.startswith("left out")
    ]
    if wrong:
        print(f"error: {'; '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


def size_fault(*sizes: tuple[int, int]) -> str:
    """Why a network cannot take frames of these sizes; empty if it can."""
    for height, width in sizes:
        if min(height, width) < 64 or height % 32 or width % 32:
            return f"{height}x{width}: must be multiples of 32, at least 64"
    return ""
