"""Runs all benchmarks and numerical checks on a GPU.

    python -m dmnet_jax.benchmark gpu --out DIR
    python -m dmnet_jax.benchmark gpu --out DIR --size 64x96 --batch 2 --no-peers
    python -m dmnet_jax.benchmark gpu --wheels DIR

There are three parts: "live" times the live step in float32 and bfloat16, with one and
three frames in flight and with 1 to 64 streams; "training" times training steps on
clips as in the paper; "checks" compares the streaming step with the network's own step,
bfloat16 with float32, and the network with the authors' outputs. PyTorch takes turns if
it is installed. Each part is saved to DIR/gpu.json and gpu.md when it is complete.
Saved parts are not measured again, so a stopped run can be resumed. After --minutes no
further part is started. A CPU works as well.

--wheels downloads the pure-Python packages that are missing on a machine without
network access that has jax, flax, optax and orbax-checkpoint. Install them there with
`pip install --no-index --no-deps --target SITE DIR/*.whl` and set PYTHONPATH=SITE.

For research use; not a medical device.
"""

import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipelines.command_line import exit_with_error, parse_flags
from dmnet_jax import machine
from dmnet_jax.benchmark import live, live_report, training
from dmnet_jax.benchmark.case import Case
from dmnet_jax.benchmark.live_case import LiveCase
from dmnet_jax.benchmark.process import Worker
from dmnet_jax.benchmark.saving import save_report
from dmnet_jax.metrics import format_table

WHEELS = (
    "docstring-parser",
    "immutabledict",
    "promise",
    "safetensors",
    "simple-parsing",
    "tensorflow-datasets",
    "tensorflow-metadata",
    "toml",
    "typeguard",
    "tyro",
)
"""Packages needed in addition to jax, flax, optax and orbax-checkpoint."""

PEERS = ("torch", "torch.compile", "authors")


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        out: Folder for gpu.md and gpu.json.
        wheels: Only download packages, to this folder.
        size: Height and width of a frame.
        batch: Number of clips per training step.
        rounds: Number of turns of each network.
        seconds: Minimum duration of a turn of live steps.
        minutes: Start no further part after this time.
        peers: Also measure PyTorch if it is installed.
    """

    out: Path | None = None
    wheels: Path | None = None
    size: tuple[int, int] = (512, 640)
    batch: int = 16
    rounds: int = 5
    seconds: float = 0.5
    minutes: float = 8.0
    peers: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog="python -m dmnet_jax.benchmark gpu",
        description=__doc__ or "",
    )
    if flags.wheels:
        return download_wheels(flags.wheels)
    if not flags.out:
        exit_with_error("--out DIR is required: the folder for the report")
    if fault := live.size_fault(flags.size):
        exit_with_error(f"--size {fault}")
    durations = (flags.seconds, flags.minutes)
    positive = all(0 < duration < math.inf for duration in durations)
    if min(flags.batch, flags.rounds) < 1 or not positive:
        exit_with_error("--batch, --rounds, --seconds and --minutes must be positive")
    command = " ".join(["python -m dmnet_jax.benchmark gpu", *(argv or [])])
    return 0 if _run(_parts(flags), flags.out, flags.minutes, command) else 1


def _parts(flags: Flags) -> dict[str, Callable[[Path], Any]]:
    """Returns a function per part, which takes a temporary folder and measures.

    The most important part is first: compilation dominates the time, so the last parts
    may not fit into --minutes.
    """
    peers = PEERS if flags.peers and find_spec("torch") else ()

    def measure_live(folder: Path) -> list[dict[str, Any]]:
        cases = _live_cases(flags.size, flags.seconds)
        return live.measure(cases, peers, folder, flags.rounds, concurrent=True)

    def measure_training(folder: Path) -> list[dict[str, Any]]:
        rows = []
        for memory in (True, False):
            case = Case(memory, flags.size, flags.batch, loader_steps=2)
            rows += training.measure(case, folder, flags.rounds, bool(peers))
        return rows

    return {
        "live": measure_live,
        "training": measure_training,
        "checks": lambda folder: checks(flags.size, folder),
    }


def _live_cases(size: tuple[int, int], seconds: float) -> list[LiveCase]:
    single = [
        LiveCase(size, 1, dtype, in_flight, seconds)
        for dtype in ("float32", "bfloat16")
        for in_flight in (1, 3)
    ]
    many = [LiveCase(size, streams, "float32", 1, seconds) for streams in (4, 16, 64)]
    return [*single, *many, LiveCase(size, 16, "bfloat16", 1, seconds)]


def checks(size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Returns the report of `gpu_checks`, run in a separate process."""
    # Nothing is timed, and kernel autotuning is most of the compile time.
    no_autotuning = "--xla_gpu_autotune_level=0"
    worker = Worker("jax checks", LiveCase(size), folder, xla_flags=no_autotuning)
    worker.close()
    return worker.report


def _run(
    parts: dict[str, Callable[[Path], Any]], out: Path, minutes: float, command: str
) -> bool:
    """Measures the parts missing in gpu.json; returns whether everything succeeded."""
    out.mkdir(parents=True, exist_ok=True)
    path, start = out / "gpu.json", time.monotonic()
    result: dict[str, Any] = {"command": command, "machine": machine.describe()}
    if path.is_file():
        result = _saved_result(path, result["machine"]["cpu"])
    success = True
    for name, measure in parts.items():
        if name in result:
            continue
        part_start = time.monotonic()
        elapsed = (part_start - start) / 60
        if elapsed > minutes:
            print(f"{name}: not started, {elapsed:.1f} minutes have passed")
            success = False
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                result[name] = measure(Path(folder))
        except RuntimeError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            success = False
            continue
        result.setdefault("seconds", {})[name] = time.monotonic() - part_start
        save_report(out, "gpu", result, report(result))
    print(report(result))
    rows = [*result.get("live", []), *result.get("training", [])]
    return success and not any("failed" in row for row in rows)


def _saved_result(path: Path, cpu: str) -> dict[str, Any]:
    """Reads gpu.json and checks that it was measured on a machine with this CPU."""
    try:
        result = dict(json.loads(path.read_bytes()))
        saved_cpu = result["machine"]["cpu"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise SystemExit(
            f"error: {path} is damaged; remove it or choose another DIR"
        ) from None
    if saved_cpu != cpu:
        raise SystemExit(
            f"error: {path} was measured on another machine; choose another DIR"
        )
    return result


def report(result: dict[str, Any]) -> str:
    """Formats the measured parts as Markdown."""
    about, checks = result["machine"], result.get("checks", {})
    device = checks.get("device", about["cpu"])
    jax = checks.get("versions", {}).get("jax", "")
    seconds = result.get("seconds", {})
    lines = [
        f"# {device}",
        "",
        f"{about['cores']} cores, jax {jax}, {about['date']}",
        "",
        ", ".join(f"{name} {duration:.0f} s" for name, duration in seconds.items()),
    ]
    if checks:
        cells = [
            [name, f"{checks[name]['labels']:.1e}", f"{checks[name]['admitted']:.1e}"]
            for name in ("stream", "rounded", "bfloat16")
        ]
        headers = ["against full float32", "labels differ", "admissions differ"]
        lines += ["", "## Checks", "", format_table(cells, headers)]
        for name, relative in checks.get("golden", {}).items():
            lines += [
                "",
                f"authors' {name}: maximum relative difference {relative:.1e}",
            ]
    if "live" in result:
        rows = result["live"]
        lines += ["", live_report.report({**result, "rows": rows})]
        gpu_memory = [
            f"{row['contestant']} {row['dtype']} x{row['streams']}: "
            f"{row['gpu_bytes'] / 2**20:.0f} MiB"
            for row in rows
            if row.get("gpu_bytes") and row["in_flight"] == 1
        ]
        lines += ["", "Peak GPU memory: " + ", ".join(gpu_memory)]
    if "training" in result:
        section = training.report({"machine": about, "rows": result["training"]})
        lines += ["", "## Training", "", section]
    return "\n".join(lines)


def download_wheels(folder: Path) -> int:
    """Downloads `WHEELS`, or builds those without a wheel; returns pip's exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w"]
    return subprocess.run([*command, str(folder), *WHEELS]).returncode
