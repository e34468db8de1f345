"""Measures where the time of a live step goes, by part of the network.

    python -m dmnet_jax.benchmark profile
    python -m dmnet_jax.benchmark profile --checkpoint RUN --size 256 320

Each part of the folded network is compiled and timed alone, on inputs of the shapes
that it has in the step, and compared with the multiply-adds that it needs at the
machine's measured peak. The whole step is timed in turns with the parts. What is left
is resizing, the argmax, the memory's bookkeeping, and what XLA gains or loses by
compiling all parts together. For research use; not a medical device.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from data_pipelines.command_line import exit_with_error, parse_flags
from data_pipelines.io.files import make_folder
from dmnet_jax import complexity, machine
from dmnet_jax.benchmark.case import MATMUL_SIZE
from dmnet_jax.benchmark.live import size_fault
from dmnet_jax.benchmark.saving import save_report
from dmnet_jax.checkpoint.runs import TrainedRun, load_run
from dmnet_jax.metrics import format_table
from dmnet_jax.nn.mobilenet import Stages
from dmnet_jax.streaming import compile

DEPTH = 2
"""Levels of the module tree that are timed: "decoder/crp1", but not its layers."""

REST = "everything else"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        checkpoint: Run directory or .safetensors file of a DMNet, or "rendered" or
            "rendered-fast" for the shipped networks.
        size: Height and width of the frames.
        rounds: Number of times that each part is timed.
        out: Folder for profile.md and profile.json.
    """

    checkpoint: str = "rendered"
    size: tuple[int, int] = (512, 640)
    rounds: int = 15
    out: Path | None = None


class Part(NamedTuple):
    """A call of a submodule in the step.

    Attributes:
        name: path of the submodule, such as "decoder/crp1".
        run: function of `arguments`.
        arguments: random arrays of the shapes in the step.
        multiply_adds: number of multiply-adds of the call.
    """

    name: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    multiply_adds: int


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog="python -m dmnet_jax.benchmark profile",
        description=__doc__ or "",
    )
    if flags.rounds < 1:
        exit_with_error(f"--rounds is {flags.rounds}; it must be at least 1")
    if fault := size_fault(flags.size):
        exit_with_error(f"--size {fault}")
    try:
        if flags.out:
            make_folder(flags.out)
        trained = load_run(flags.checkpoint)
        if trained.config.model.name != "dmnet":
            raise ValueError(
                f"{flags.checkpoint} is {trained.config.model.name}; only DMNet can be "
                "profiled"
            )
        result = {
            "command": " ".join(
                ["python -m dmnet_jax.benchmark profile", *(argv or [])]
            ),
            "machine": machine.describe(),
            "size": list(flags.size),
            **measure(trained, flags.size, flags.rounds),
        }
        text = report(result)
        if flags.out:
            save_report(flags.out, "profile", result, text)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    print(text)
    return 0


def measure(trained: TrainedRun, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Times the step and its parts in turns.

    Returns:
        "step_ms"; "peak", multiply-adds per second; "rows": for each group of parts
        "name", "calls", "ms" and "multiply_adds".
    """
    matrix = jnp.ones((MATMUL_SIZE, MATMUL_SIZE))
    multiply = jax.jit(jnp.matmul)
    peak = machine.peak_matmul_rate(
        lambda: multiply(matrix, matrix).block_until_ready(), MATMUL_SIZE
    )
    found = parts(trained.model, trained.variables, size)
    calls = [_step(trained, size), *(_compiled(part) for part in found)]
    for call in calls:
        call()
    seconds = [[machine.time_call(call) for call in calls] for _ in range(rounds)]
    step, *each = (
        1e3 * statistics.median(times) for times in zip(*seconds, strict=True)
    )
    resolutions = _resolutions(trained.model.stages)
    rows: dict[str, dict[str, Any]] = {}
    for part, ms in zip(found, each, strict=True):
        name = _group(part.name, resolutions)
        row = rows.setdefault(
            name, {"name": name, "calls": 0, "ms": 0.0, "multiply_adds": 0}
        )
        row["calls"] += 1
        row["ms"] += ms
        row["multiply_adds"] += part.multiply_adds
    rest = step - sum(row["ms"] for row in rows.values())
    rows[REST] = {"name": REST, "calls": 1, "ms": rest, "multiply_adds": 0}
    return {"step_ms": step, "peak": peak, "rows": list(rows.values())}


def parts(model: Any, variables: Any, size: tuple[int, int]) -> list[Part]:
    """Returns the calls of submodules in a step of the folded network, in order.

    A submodule is a part if it is `DEPTH` levels deep, or less deep without
    submodules of its own that are called.
    """
    model, variables = model.folded(variables)
    calls: dict[tuple[str, ...], list[Any]] = {}

    def intercept(run: Any, inputs: Any, keywords: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and 0 < len(module.path) <= DEPTH:
            module = module.clone(parent=None, name=None)
            leaves, tree = jax.tree.flatten((inputs, keywords))
            shapes = [_shape(leaf) for leaf in leaves]
            calls.setdefault(context.module.path, []).append((module, shapes, tree))
        return run(*inputs, **keywords)

    frame = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    memory = jax.eval_shape(lambda: model.init_memory(1, size, jax.random.key(0)))
    with nn.intercept_methods(intercept):
        jax.eval_shape(
            lambda *inputs: model.apply(*inputs, method="step"),
            variables,
            memory,
            frame,
        )
    parents = {path[:depth] for path in calls for depth in range(1, len(path))}
    return [
        _part(path, call, variables)
        for path, all_calls in calls.items()
        if path not in parents
        for call in all_calls
    ]


def _shape(leaf: Any) -> Any:
    """Returns the shape of an array; other values are returned unchanged."""
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def _part(path: tuple[str, ...], call: Any, variables: Any) -> Part:
    module, shapes, tree = call
    params = variables["params"]
    for name in path:
        params = params.get(name, {})
    is_array = [isinstance(shape, jax.ShapeDtypeStruct) for shape in shapes]
    rng = np.random.default_rng(0)
    arrays = tuple(_random(rng, s) for s, a in zip(shapes, is_array, strict=True) if a)

    def run(params: Any, *arrays: Any) -> Any:
        rest = iter(arrays)
        leaves = [
            next(rest) if a else shape
            for shape, a in zip(shapes, is_array, strict=True)
        ]
        inputs, keywords = jax.tree.unflatten(tree, leaves)
        return module.apply({"params": params}, *inputs, **keywords)

    arguments = (jax.tree.map(jnp.asarray, params), *arrays)
    cost = complexity.count(run, *arguments).multiply_adds
    return Part("/".join(path), run, arguments, cost)


def _random(rng: np.random.Generator, shape: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jnp.floating):
        return jnp.asarray(rng.random(shape.shape), shape.dtype)
    return jnp.ones(shape.shape, shape.dtype)


def _compiled(part: Part) -> Callable[[], Any]:
    compiled = jax.jit(part.run).lower(*part.arguments).compile()
    return lambda: jax.block_until_ready(compiled(*part.arguments))


def _step(trained: TrainedRun, size: tuple[int, int]) -> Callable[[], Any]:
    """Returns a function that runs the whole step on a frame in host memory."""
    program = compile(trained.model, trained.variables, size=size)
    memory = program.init_memory(jax.random.key(0))
    frame = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)

    def step() -> np.ndarray:
        nonlocal memory
        memory, labeled = program.step(memory, frame)
        return np.asarray(labeled.labels)

    return step


def _group(name: str, resolutions: Sequence[str]) -> str:
    """Returns the row of a part: the encoder's blocks are one row per resolution."""
    first, _, rest = name.partition("/")
    if first != "backbone":
        return name
    if not rest.startswith("block"):
        return "encoder, stem"
    return f"encoder, {resolutions[int(rest.removeprefix('block'))]}"


def _resolutions(stages: Stages) -> list[str]:
    """Returns the size of each encoder block's output as a fraction of the frame's."""
    result, stride = [], 2  # of the stem
    for _, _, blocks, first_stride in stages:
        stride *= first_stride
        result += [f"1/{stride}"] * blocks
    return result


def report(result: dict[str, Any]) -> str:
    """Formats the result of `measure` as Markdown."""
    about, total = result["machine"], result["step_ms"]
    cells = []
    rows = sorted(result["rows"], key=lambda row: -row["ms"])
    for row in rows:
        work = row["multiply_adds"]
        rate = 1e3 * work / row["ms"] if row["ms"] > 0 else 0.0
        cells.append(
            [
                row["name"],
                f"{row['ms']:.1f}",
                f"{row['ms'] / total:.0%}",
                f"{work / 1e9:.2f}" if work else "",
                f"{1e3 * work / result['peak']:.1f}" if work else "",
                f"{rate / result['peak']:.0%}" if work else "",
            ]
        )
    work = sum(row["multiply_adds"] for row in rows)
    floor = 1e3 * work / result["peak"]
    cells.append(
        ["the step", f"{total:.1f}", "", f"{work / 1e9:.2f}", f"{floor:.1f}"]
        + [f"{floor / total:.0%}"]
    )
    heads = ["part", "ms", "share", "G multiply-adds", "ms at the peak", "of the peak"]
    height, width = result["size"]
    return (
        f"`{result['command']}`\n\n{about['cpu']}, {about['cores']} cores; {height}x"
        f"{width}; peak {result['peak'] / 1e9:.0f} G multiply-adds per second "
        f"({MATMUL_SIZE}x{MATMUL_SIZE} product); {about['date']}\n\n"
        + format_table(cells, heads)
    )
