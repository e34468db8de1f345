"""Times training steps and compares them with PyTorch and the machine's peak.

    python -m dmnet_jax.benchmark training
    python -m dmnet_jax.benchmark training --size 256 320 --batch 4 --peers

Without --size and --batch there are two settings: the paper's (16 clips of 512x640) and
one for a laptop (4 clips of 256x320). With --peers, which needs the extra of that name,
a PyTorch version of the same network takes turns, after its loss, logits and gradients
have been verified to be the same. Every network runs in a separate process; JAX and
PyTorch use CUDA if it is available. For research use; not a medical device.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_pipelines.command_line import exit_with_error, parse_flags
from data_pipelines.io.environment import install_command
from dmnet_jax import machine
from dmnet_jax.benchmark.case import Case
from dmnet_jax.benchmark.live import size_fault
from dmnet_jax.benchmark.process import Worker
from dmnet_jax.metrics import format_table

PAPER, LAPTOP = ((512, 640), 16), ((256, 320), 4)
# A small case for comparing gradients is enough: in float64, rounding hides no error.
EXACT_CASE = Case(memory=True, size=(64, 96), batch=2, exact=True)
TOLERANCE = 1e-4
"""Maximum relative difference of PyTorch in `EXACT_CASE`."""

NOTES = """\
A step consists of the forward pass, Dice loss at the labels' size, gradient and Adam,
in float32, without dropout; remembered frames are encoded without gradient.
`time / JAX time` is the median over rounds of the ratio of step times in the same
round: above 1, JAX is faster. `loader wait` is the share of time that a loop over
rendered clips waits for the data loader. `G/s` counts 10^9 multiply-adds of
convolutions and attention: the forward pass once, and twice that for the gradient
where there is one; `of peak` is its share of the rate that the same framework reaches
in a product of two 2048x2048 matrices."""


def step_operations(case: Case) -> int:
    """Returns the multiply-adds of one step, counted as described in `NOTES`."""
    import jax
    import jax.numpy as jnp

    from dmnet_jax.complexity import count
    from dmnet_jax.models.dmnet import DMNet
    from dmnet_jax.models.protocol import ClipBatch

    model = DMNet(8) if case.memory else DMNet(8).single_frame()
    key = jax.random.key(0)
    variables = jax.eval_shape(
        lambda: model.init(
            key,
            model.init_memory(1, (32, 32), key),
            jnp.zeros((1, 1, 32, 32, 3), jnp.uint8),
        )
    )

    def frames(count: int) -> Any:
        return jax.ShapeDtypeStruct((case.batch, count, *case.size, 3), jnp.uint8)

    def masks(count: int) -> Any:
        return jax.ShapeDtypeStruct((case.batch, count), bool)

    local, past = (5, 4) if case.memory else (1, 0)
    clip = count(
        lambda *inputs: model.apply(*inputs, method="clip"),
        variables,
        ClipBatch(frames(local), masks(local), frames(past), masks(past)),
        key,
    )

    def encode(*inputs: Any) -> Any:
        return model.apply(*inputs, method=DMNet.encode)

    frame = jax.ShapeDtypeStruct((case.batch, *case.size, 3), jnp.uint8)
    encoded = count(encode, variables, frame)
    remembered = (local - 1 + past) * encoded.convolution
    return 3 * (clip.convolution + clip.attention) - 2 * remembered


def check(folder: Path) -> dict[str, dict[str, float]]:
    """Returns PyTorch's differences from JAX, for both networks.

    Raises:
        RuntimeError: a difference is above `TOLERANCE`, or a worker failed.
    """
    result = {}
    for memory in (False, True):
        case = replace(EXACT_CASE, memory=memory)
        for kind in ("jax", "torch"):
            worker = Worker(f"{kind} training", case, folder)
            worker.close()
        name = network_name(case)
        result[name] = worker.report["differences"]
        if max(result[name].values()) > TOLERANCE:
            raise RuntimeError(f"{name}: PyTorch differs by {result[name]}")
    return result


def network_name(case: Case) -> str:
    return "DMNet" if case.memory else "single-frame"


def measure(case: Case, folder: Path, rounds: int, peers: bool) -> list[dict[str, Any]]:
    """Times one case; JAX and PyTorch take a turn in every round.

    Args:
        case: the case.
        folder: folder for the files that the workers share.
        rounds: number of rounds.
        peers: whether to time PyTorch too.

    Returns:
        One row per framework; a single row with "failed" if a worker failed.
    """
    workers: dict[str, Worker] = {}
    try:
        # PyTorch reads the files that JAX writes.
        for kind in ("jax", "torch") if peers else ("jax",):
            workers[kind] = Worker(f"{kind} training", case, folder)
        times: dict[str, list[float]] = {kind: [] for kind in workers}
        for turn in range(rounds):
            order = list(workers) if turn % 2 == 0 else list(workers)[::-1]
            for kind in order:
                times[kind].append(workers[kind].turn()["seconds"])
        memory = {kind: worker.close() for kind, worker in workers.items()}
    except RuntimeError as error:
        return [{**asdict(case), "network": network_name(case), "failed": str(error)}]
    finally:
        for worker in workers.values():
            worker.stop()
    rows = []
    for kind, worker in workers.items():
        report, median = worker.report, statistics.median(times[kind])
        rate = step_operations(case) / median
        pairs = zip(times[kind], times["jax"], strict=True)
        rows.append(
            {
                **asdict(case),
                "network": network_name(case),
                "framework": kind,
                "step_s": times[kind],
                "samples_per_s": case.batch / median,
                "ratio": statistics.median(a / b for a, b in pairs),
                "memory_bytes": memory[kind],
                "gpu_bytes": worker.gpu_memory,
                "operations_per_s": rate,
                "share_of_peak": rate / report["peak"],
                **report,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows of `measure` as a Markdown table."""
    cells = []
    for row in rows:
        height, width = row["size"]
        case = [row["network"], f"{row['batch']} x {height}x{width}"]
        if "failed" in row:
            cells.append([*case, row["failed"], *[""] * 8])
            continue
        is_jax = row["framework"] == "jax"
        cells.append(
            [
                *case,
                "JAX" if is_jax else "PyTorch",
                f"{statistics.median(row['step_s']):.3f}",
                f"{row['samples_per_s']:.2f}",
                f"{row['ratio']:.2f}",
                f"{row['waiting']:.1%}" if is_jax else "",
                f"{row['memory_bytes'] / 2**30:.2f}",
                f"{row['compile_s']:.0f}" if is_jax else "",
                f"{row['operations_per_s'] / 1e9:.1f}",
                f"{row['share_of_peak']:.0%}",
            ]
        )
    headers = ["network", "batch", "", "s/step", "samples/s", "time / JAX time"]
    headers += ["loader wait", "GiB", "compile s", "G/s", "of peak"]
    return format_table(cells, headers)


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        size: Height and width of a frame.
        batch: Number of clips per step.
        rounds: Number of steps to time for each network.
        peers: Also measure PyTorch.
        json: File to write the results to.
    """

    size: tuple[int, int] | None = None
    batch: int | None = None
    rounds: int = 7
    peers: bool = False
    json: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog="python -m dmnet_jax.benchmark training",
        description=__doc__ or "",
    )
    if flags.size and (fault := size_fault(flags.size)):
        exit_with_error(f"--size {fault}")
    if flags.rounds < 1 or (flags.batch is not None and flags.batch < 1):
        exit_with_error("--batch and --rounds must be at least 1")
    if flags.peers and find_spec("torch") is None:
        exit_with_error(f"--peers needs PyTorch: {install_command('peers')}")
    settings = [PAPER, LAPTOP]
    if flags.size or flags.batch:
        height, width = flags.size or PAPER[0]
        settings = [((height, width), flags.batch or PAPER[1])]
    result: dict[str, Any] = {"machine": machine.describe(), "rows": []}
    with tempfile.TemporaryDirectory() as directory:
        if flags.peers:
            try:
                result["differences"] = check(Path(directory))
            except RuntimeError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
        for size, batch in settings:
            for memory in (False, True):
                case = Case(memory, size, batch, loader_steps=flags.rounds)
                folder = Path(directory) / f"{size[0]}x{size[1]}"
                folder.mkdir(exist_ok=True)
                result["rows"] += measure(case, folder, flags.rounds, flags.peers)
    print(report(result))
    if flags.json:
        flags.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def report(result: dict[str, Any]) -> str:
    """Formats machine, differences and times as Markdown."""
    about = result["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores; allocator {about['allocator']}; "
        f"{about['date']}",
        "",
    ]
    for name, values in result.get("differences", {}).items():
        details = ", ".join(f"{key} {value:.1e}" for key, value in values.items())
        lines += [f"{name}: relative difference of PyTorch, float64: {details}", ""]
    return "\n".join([*lines, table(result["rows"]), "", NOTES])
