"""Times a session of trained networks and exported files, in turns.

    python -m dmnet_jax.benchmark networks --checkpoints rendered rendered-fast
    python -m dmnet_jax.benchmark networks --checkpoints RUN STEP.xml --size 512 640

A step takes one uint8 frame in host memory to labels in host memory
(`streaming.Session.step`). Each network takes a turn in every round, in alternating
order, so that a busy machine slows all of them. Frames are of rendered video. For
research use; not a medical device.
"""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.command_line import exit_with_error, parse_flags
from data_pipelines.io.files import make_folder
from dmnet_jax import machine
from dmnet_jax.benchmark.live import size_fault
from dmnet_jax.benchmark.saving import save_report
from dmnet_jax.metrics import format_table
from dmnet_jax.predict.network import EXPORTED
from dmnet_jax.streaming import Session
from dmnet_jax.video.sources import Rendered

FRAMES = 32
"""Number of different frames, shown again and again."""
WARM = 8
"""Number of steps before the first turn."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        checkpoints: Run directories, exported files (.safetensors, .jax, .onnx, .xml),
            or "rendered" and "rendered-fast" for the shipped networks. Ratios are over
            the first.
        size: Height and width of the frames. An exported file has its own.
        rounds: Number of turns of each network.
        steps: Number of steps in a turn.
        out: Folder for networks.md and networks.json.
    """

    checkpoints: tuple[str, ...] = ("rendered",)
    size: tuple[int, int] = (512, 640)
    rounds: int = 9
    steps: int = 20
    out: Path | None = None


@dataclasses.dataclass
class Contestant:
    """A network and its step times.

    Attributes:
        name: as given on the command line.
        session: the session.
        compile_s: seconds to load and compile it.
        turns: seconds of each step, by turn.
    """

    name: str
    session: Session
    compile_s: float
    turns: list[list[float]] = dataclasses.field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of its frames."""
        return self.session.program.interface.size


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog="python -m dmnet_jax.benchmark networks",
        description=__doc__ or "",
    )
    if not flags.checkpoints or min(flags.rounds, flags.steps) < 1:
        exit_with_error("--checkpoints, --rounds and --steps need at least 1")
    if fault := size_fault(flags.size):
        exit_with_error(f"--size {fault}")
    try:
        if flags.out:
            make_folder(flags.out)
        contestants = [load(name, flags.size) for name in flags.checkpoints]
        measure(contestants, flags.rounds, flags.steps)
        result = {
            "command": " ".join(
                ["python -m dmnet_jax.benchmark networks", *(argv or [])]
            ),
            "machine": machine.describe(),
            "rows": [row(contestant, contestants[0]) for contestant in contestants],
        }
        text = report(result)
        if flags.out:
            save_report(flags.out, "networks", result, text)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    print(text)
    return 0


def load(name: str, size: tuple[int, int]) -> Contestant:
    """Loads a network and compiles its step.

    Args:
        name: see `Flags.checkpoints`.
        size: (H, W) of the frames, unless it is an exported file.

    Raises:
        ValueError: the network cannot be loaded, or was exported for several streams.
    """
    start = time.perf_counter()
    if Path(name).suffix in EXPORTED:
        session = Session.from_artifact(name)
        if session.program.interface.streams != 1:
            raise ValueError(f"{name}: exported for several streams; export it for one")
    else:
        session = Session.from_checkpoint(name, size=size)
    return Contestant(name, session, time.perf_counter() - start)


def measure(contestants: Sequence[Contestant], rounds: int, steps: int) -> None:
    """Adds `rounds` turns of `steps` steps to each network's `turns`."""
    sizes = {contestant.size for contestant in contestants}
    videos = {
        size: itertools.cycle([item.image for item in Rendered(size, FRAMES)])
        for size in sizes
    }
    for contestant in contestants:
        for _ in range(WARM):
            contestant.session.step(next(videos[contestant.size]))
    for number in range(rounds):
        order = contestants if number % 2 == 0 else contestants[::-1]
        for contestant in order:
            seconds = []
            for _ in range(steps):
                frame = next(videos[contestant.size])
                start = time.perf_counter()
                contestant.session.step(frame)
                seconds.append(time.perf_counter() - start)
            contestant.turns.append(seconds)


def row(contestant: Contestant, first: Contestant) -> dict[str, Any]:
    """Computes the step times in milliseconds, and the ratios to another network.

    "ratios" holds, for each round, the other network's median by this one's: above 1,
    this one is faster.
    """
    spent = 1e3 * np.concatenate(contestant.turns)
    p50, p95, p99 = (float(p) for p in np.percentile(spent, (50, 95, 99)))
    return {
        "checkpoint": contestant.name,
        "size": list(contestant.size),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "frames_per_second": float(1e3 / spent.mean()),
        "compile_s": contestant.compile_s,
        "steps": len(spent),
        "ratios": [
            statistics.median(its) / statistics.median(mine)
            for its, mine in zip(first.turns, contestant.turns, strict=True)
        ],
    }


def report(result: dict[str, Any]) -> str:
    """Formats the result as Markdown."""
    about = result["machine"]
    cells = []
    for row in result["rows"]:
        ratios = row["ratios"]
        cells.append(
            [
                row["checkpoint"],
                "x".join(map(str, row["size"])),
                *(f"{row[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                f"{row['frames_per_second']:.1f}",
                f"{statistics.median(ratios):.2f} "
                f"[{min(ratios):.2f}..{max(ratios):.2f}]",
                f"{row['compile_s']:.1f}",
            ]
        )
    heads = ["network", "size", "p50 ms", "p95", "p99", "frames/s"]
    heads += ["faster than the first [rounds]", "compile s"]
    return (
        f"`{result['command']}`\n\n{about['cpu']}, {about['cores']} cores; "
        f"{about['date']}\n\n{format_table(cells, heads)}"
    )
