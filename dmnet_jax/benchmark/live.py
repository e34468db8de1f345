"""Times the live step and compares it with other runtimes and the machine's limits.

    python -m dmnet_jax.benchmark
    python -m dmnet_jax.benchmark --streams 1 2 4 8 --dtypes float32 bfloat16 --out DIR
    python -m dmnet_jax.benchmark --streams 1 4 16 64 --in-flight 1 3  # on a GPU
    python -m dmnet_jax.benchmark --peers
    python -m dmnet_jax.benchmark --peers export export-bf16 export-int8
    python -m dmnet_jax.benchmark training --help

A step of DMNet takes uint8 frames in host memory to label maps in host memory. With
--peers, which needs the extra of that name, other runtimes take turns on the same
frames, after their labels, scores and admissions have been verified to be the same. The
peers named "export" run this project's export in OpenVINO, also in bfloat16 and int8,
and report the mIoU that is lost. Each contestant runs in a separate process, with one
thread per available core (`taskset` limits them) and the same allocator; JAX and
PyTorch use CUDA if it is available. `training` measures training steps.

For research use; not a medical device.
"""

import dataclasses
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
from dmnet_jax.benchmark.saving import save_report

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
"""Packages that each peer needs."""

REDUCED_PRECISION = ("export-bf16", "export-int8")
"""Peers that are timed even if their outputs differ; the differences are reported."""

# Labels may differ where two classes have nearly equal scores.
TOLERANCE = {"labels": 1e-3, "confidence": 1e-4, "distance": 1e-4, "admitted": 0.0}
# On a GPU, XLA and PyTorch (as set here) use TF32, with a 10-bit mantissa.
TF32_TOLERANCE = {
    "labels": 1e-2,
    "confidence": 1e-2,
    "distance": 1e-2,
    "admitted": 0.0,
}


def measure(
    cases: Sequence[LiveCase],
    peers: Sequence[str],
    folder: Path,
    rounds: int,
    concurrent: bool = False,
) -> list[dict[str, Any]]:
    """Times all contestants of one frame size.

    A contestant is this project with one of the cases, or a peer with the first case.
    All take a turn in every round, and every second round is in reverse order.

    Args:
        cases: cases of this project. The first is the reference of the comparison:
            float32 and one stream.
        peers: keys of `PEERS`.
        folder: folder for the files that contestants share.
        rounds: number of rounds.
        concurrent: whether to prepare all contestants except the first at the same
            time. This is faster with many cores, but makes compile times less
            meaningful.

    Returns:
        One row per contestant: the case, "contestant", "turns" and the worker's report,
        or "failed" with the reason.
    """
    contestants = [("jax", case) for case in cases]
    contestants += [(kind, cases[0]) for kind in peers]
    rows: list[dict[str, Any]] = []
    workers: list[Worker | None] = []
    # The others read files that the first contestant writes.
    batches = [contestants[:1], contestants[1:]]
    if not concurrent:
        batches = [[contestant] for contestant in contestants]
    try:
        for batch in batches:
            _print_progress(f"preparing {', '.join(kind for kind, _ in batch)}")
            on_cpu = not rows or rows[0].get("platform", "cpu") == "cpu"
            tolerance = TOLERANCE if on_cpu else TF32_TOLERANCE
            with ThreadPoolExecutor(max(1, len(batch))) as pool:
                start = partial(_start, folder=folder, tolerance=tolerance)
                started = list(pool.map(start, *zip(*batch, strict=True)))
            for (kind, case), (worker, failure) in zip(batch, started, strict=True):
                row = {**vars(case), "contestant": kind, "turns": []}
                report = worker.report if worker else {"failed": failure}
                rows.append({**row, **report})
                workers.append(worker)
        for turn in range(rounds):
            _print_progress(f"round {turn + 1} of {rounds}")
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


def _print_progress(text: str) -> None:
    """Prints to standard error, because standard output is for the report."""
    print(text, file=sys.stderr, flush=True)


def _start(
    kind: str, case: LiveCase, folder: Path, tolerance: Mapping[str, float]
) -> tuple[Worker | None, str]:
    """Prepares a contestant and checks its outputs.

    Returns:
        The worker and "", or None and the reason why it cannot be timed.
    """
    missing = [name for name in PEERS.get(kind, ()) if find_spec(name) is None]
    if missing:
        return None, f"{' and '.join(missing)} not installed"
    try:
        worker = Worker(kind, case, folder)
    except RuntimeError as error:
        return None, str(error)
    if reason := worker.report.get("skipped"):
        worker.stop()
        return None, f"skipped: {reason}"
    if kind in REDUCED_PRECISION:
        return worker, ""
    differences = worker.report.get("differences", {})
    excessive = [
        name for name, value in differences.items() if not value <= tolerance[name]
    ]
    if not excessive:
        return worker, ""
    worker.stop()
    details = ", ".join(f"{name} by {differences[name]:.1e}" for name in excessive)
    return None, f"not timed: its outputs differ ({details})"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        sizes: Heights and widths of the frames.
        streams: Numbers of streams per step.
        dtypes: Dtypes of the network's features.
        in_flight: Numbers of frames sent before the labels of the first are read.
        rounds: Number of turns of each contestant.
        peers: Other runtimes to measure; all of them if no names follow.
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
    peers = PEERS if flags.peers == () else flags.peers or ()
    for size in flags.sizes:
        with tempfile.TemporaryDirectory() as folder:
            result["rows"] += measure(
                _cases(size, flags), [*peers], Path(folder), flags.rounds
            )
    text = live_report.report(result)
    print(text)
    if flags.out:
        save_report(flags.out, "live", result, text)
    # A missing package or an unsupported precision is not an error.
    errors = [
        row["failed"]
        for row in result["rows"]
        if "failed" in row
        and not row["failed"].endswith("not installed")
        and not row["failed"].startswith("skipped")
    ]
    if errors:
        print(f"error: {'; '.join(errors)}", file=sys.stderr)
    return 1 if errors else 0


def _cases(size: tuple[int, int], flags: Flags) -> list[LiveCase]:
    """Returns the cases of one frame size without repetitions, the reference first."""
    cases = [LiveCase(size)] + [
        LiveCase(size, streams, dtype, in_flight)
        for dtype in flags.dtypes
        for streams in flags.streams
        for in_flight in flags.in_flight
    ]
    return list(dict.fromkeys(cases))


def size_fault(*sizes: tuple[int, int]) -> str:
    """Returns why a network does not support one of the frame sizes, or ""."""
    for height, width in sizes:
        if min(height, width) < 64 or height % 32 or width % 32:
            return f"{height}x{width}: must be multiples of 32, at least 64"
    return ""
