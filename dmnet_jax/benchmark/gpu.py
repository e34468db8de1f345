"""All that is to be known of a GPU, by one command.

    python -m dmnet_jax.benchmark gpu --out DIR
    python -m dmnet_jax.benchmark gpu --out DIR --size 64x96 --batch 2 --no-peers
    python -m dmnet_jax.benchmark gpu --wheels DIR

The live step in float32 and bfloat16 with one and three frames in flight, 1 to 64
streams together; training steps by the paper's clip; then checks (the streamed step
against the network's own, the authors' outputs, bfloat16). PyTorch takes turns where it
is installed. Each part is written to DIR/gpu.json and gpu.md when it is
done, and what is there is not measured again, so a stopped run goes on; a part is not
begun once --minutes have passed. It runs on a CPU as well.

`--wheels` collects the pure-Python packages that a machine with jax, flax, optax and
orbax-checkpoint, but without a network, still lacks; there, `pip install --no-index
--no-deps --target SITE DIR/*.whl` and PYTHONPATH=SITE. For research use; not a medical
device.
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
from data_pipelines.io.files import write_text
from dmnet_jax import machine
from dmnet_jax.benchmark import live, live_report, training
from dmnet_jax.benchmark.case import Case
from dmnet_jax.benchmark.live_case import LiveCase
from dmnet_jax.benchmark.process import Worker
from dmnet_jax.metrics import format_table

# What the project needs beside the packages of a machine for JAX.
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
PEERS = ("torch", "torch.compile", "authors")


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        out: Folder for gpu.md and gpu.json.
        wheels: Only collect wheels, in this folder.
        size: Height and width of a frame.
        batch: Clips of a training step.
        rounds: Turns of each.
        seconds: Length of a turn.
        minutes: Begin no part after.
        peers: Measure PyTorch as well, if it is installed.
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
        return collect_wheels(flags.wheels)
    if not flags.out:
        exit_with_error("--out DIR says where the report goes")
    if fault := live.size_fault(flags.size):
        exit_with_error(f"--size {fault}")
    times = (flags.seconds, flags.minutes)
    if min(flags.batch, flags.rounds) < 1 or not all(0 < t < math.inf for t in times):
        exit_with_error("--batch, --rounds, --seconds and --minutes must be positive")
    peers = PEERS if flags.peers and find_spec("torch") else ()
    # The most telling part first: compilation is most of the time, and it may run out.
    parts: dict[str, Callable[[Path], Any]] = {
        "live": lambda folder: live.measure(
            _live_cases(flags.size, flags.seconds),
            peers,
            folder,
            flags.rounds,
            at_once=True,
        ),
        "training": lambda folder: [
            row
            for memory in (True, False)
            for row in training.measure(
                Case(memory, flags.size, flags.batch, loader_steps=2),
                folder,
                flags.rounds,
                bool(peers),
            )
        ],
        "checks": lambda folder: checks(flags.size, folder),
    }
    command = " ".join(["python -m dmnet_jax.benchmark gpu", *(argv or [])])
    return 0 if _run(parts, flags.out, flags.minutes, command) else 1


def _live_cases(size: tuple[int, int], seconds: float) -> list[LiveCase]:
    one = [
        LiveCase(size, 1, dtype, in_flight, seconds)
        for dtype in ("float32", "bfloat16")
        for in_flight in (1, 3)
    ]
    many = [LiveCase(size, streams, "float32", 1, seconds) for streams in (4, 16, 64)]
    return [*one, *many, LiveCase(size, 16, "bfloat16", 1, seconds)]


def checks(size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """What `gpu_checks` reports, run in a separate process."""
    # Nothing is timed, and trying kernels out takes most of the compilation there.
    quick = "--xla_gpu_autotune_level=0"
    worker = Worker("jax checks", LiveCase(size), folder, xla_flags=quick)
    worker.close()
    return worker.report


def _run(
    parts: dict[str, Callable[[Path], Any]], out: Path, minutes: float, command: str
) -> bool:
    """Measures what is missing in DIR/gpu.json; False if something failed."""
    out.mkdir(parents=True, exist_ok=True)
    path, start = out / "gpu.json", time.monotonic()
    result: dict[str, Any] = {"command": command, "machine": machine.describe()}
    if path.is_file():
        try:
            known = dict(json.loads(path.read_bytes()))
            cpu = known["machine"]["cpu"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise SystemExit(
                f"error: {path} is damaged; remove it or choose another DIR"
            ) from None
        if cpu != result["machine"]["cpu"]:
            raise SystemExit(f"error: {path} is of another machine; choose another DIR")
        result = known
    good = True
    for name, measure in parts.items():
        minutes_gone = (time.monotonic() - start) / 60
        if name in result:
            continue
        if minutes_gone > minutes:
            print(f"{name}: not begun, {minutes_gone:.1f} minutes have passed")
            good = False
            continue
        begun = time.monotonic()
        try:
            with tempfile.TemporaryDirectory() as folder:
                result[name] = measure(Path(folder))
        except RuntimeError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            good = False
            continue
        result.setdefault("seconds", {})[name] = time.monotonic() - begun
        write_text(path, json.dumps(result, indent=1) + "\n")
        write_text(out / "gpu.md", report(result) + "\n")
    print(report(result))
    rows = [*result.get("live", []), *result.get("training", [])]
    return good and not any("failed" in row for row in rows)


def report(result: dict[str, Any]) -> str:
    """Markdown of the parts that are there."""
    about, lines = result["machine"], []
    checks = result.get("checks", {})
    where = checks.get("device", about["cpu"])
    jax = checks.get("versions", {}).get("jax", "")
    lines += [f"# {where}", "", f"{about['cores']} cores, jax {jax}, {about['date']}"]
    spent = result.get("seconds", {})
    lines += ["", ", ".join(f"{k} {v:.0f} s" for k, v in spent.items())]
    if checks:
        cells = [
            [name, f"{checks[name]['labels']:.1e}", f"{checks[name]['admitted']:.1e}"]
            for name in ("stream", "rounded", "bfloat16")
        ]
        headers = ["against the network in full float32", "labels differ", "decisions"]
        lines += ["", "## Checks", "", format_table(cells, headers)]
        for name, relative in checks.get("golden", {}).items():
            lines += [
                "",
                f"authors' {name}: largest relative difference {relative:.1e}",
            ]
    if "live" in result:
        rows = result["live"]
        lines += ["", live_report.report({**result, "rows": rows})]
        held = [
            f"{row['contestant']} {row['dtype']} x{row['streams']}: "
            f"{row['gpu_bytes'] / 2**20:.0f} MiB"
            for row in rows
            if row.get("gpu_bytes") and row["in_flight"] == 1
        ]
        lines += ["", "Peak GPU memory: " + ", ".join(held)]
    if "training" in result:
        section = training.report({"machine": about, "rows": result["training"]})
        lines += ["", "## Training", "", section]
    return "\n".join(lines)


def collect_wheels(folder: Path) -> int:
    """Downloads `WHEELS` for Python 3.12 on Linux; builds those without a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w"]
    return subprocess.run([*command, str(folder), *WHEELS]).returncode


if __name__ == "__main__":
    sys.exit(main())
