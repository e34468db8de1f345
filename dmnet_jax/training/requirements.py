"""Rough estimate of the memory and time that a run needs, made before compiling.

Memory is the size of the residuals that the backward pass keeps from the forward pass,
counted while JAX traces the step. On CPUs this is 6 to 18 % more than XLA then uses
(DMNet at 128x160 and 256x320); for the paper's recipe it is 16.4 GB, and 16 GB were
used. Time is the number of multiply-adds divided by the speed of matrix products on
this machine; measured times were 0.6 to 1.1 of the estimate (2 cores of an AMD EPYC,
jax 0.10.2, 2026-11-26).
"""

import logging
from collections.abc import Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.frames import FrameSource
from dmnet_jax import training
from dmnet_jax.config import Config
from dmnet_jax.machine import peak_matmul_rate
from dmnet_jax.models.features import FEATURES
from dmnet_jax.models.forward import FORWARD
from dmnet_jax.training.feature_cache import CachedForm, cached_form
from dmnet_jax.training.stages import Stage

# The backward pass costs twice the forward pass. A network reaches about a quarter of
# the speed of matrix products.
_PASSES, _SLOWDOWN = 3, 4
_MATRIX = 1024

_log = logging.getLogger(__name__)


class Requirements(NamedTuple):
    """Cost of a stage, for all rows of a batch that this process computes.

    Attributes:
        memory: bytes of one step.
        multiply_adds: multiply-adds of the forward pass of one step.
        encoding: multiply-adds of encoding the frames that the stage caches.
    """

    memory: int
    multiply_adds: int
    encoding: int = 0


def stage_requirements(
    stage: Stage, network: Any, variables: Any, config: Config
) -> Requirements:
    """Estimates the cost of a stage. Its step is traced, not compiled.

    Args:
        stage: the stage; its loader has the `rows`, `size` and `spec` of a
            `ClipLoader`.
        network: the network of the run.
        variables: its variables, or their shapes.
        config: config of the run.
    """
    alone = stage.part == "single_frame"
    model = network.single_frame() if alone else network
    model = model.clone(axis_name=None)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    trained, frozen = training.split_params(shapes["params"], stage.part)
    others = {name: part for name, part in shapes.items() if name != "params"}
    form = cached_form(stage.recipe, model) if stage.cached_views else None
    residuals = 0

    def step(trained: Any, frozen: Any, others: Any, batch: Any, key: Any) -> Any:
        def loss(trained: Any) -> Any:
            return training.forward_loss(
                {**others, "params": {**frozen, **trained}},
                batch,
                key,
                model=model,
                forward=FORWARD[form.recipe if form else stage.recipe],
                truncate=config.train.rollout_truncate,
                batch_statistics=not stage.only_memory,
                memory_gradient=config.train.memory_gradient and not stage.only_memory,
                optim=config.optim,
            )

        value, backward, _ = jax.vjp(loss, trained, has_aux=True)
        nonlocal residuals
        residuals = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))
        return value

    key = jax.eval_shape(lambda: jax.random.key(0))
    encoding = 0
    if form:
        encode = partial(model.apply, method=form.method)
        frame = jax.ShapeDtypeStruct((1, *config.data.size, 3), np.uint8)
        maps = jax.eval_shape(encode, shapes, frame)
        batch = _cached_batch(stage, form, maps)
        frames = sum(len(video.frames) for video in stage.loader.source.videos)
        copies = stage.cached_views * (1 + stage.corrupted_views)
        encoding = frames * copies * multiply_adds(encode, shapes, frame)
    else:
        batch = _batch(stage)
    forward_cost = multiply_adds(step, trained, frozen, others, batch, key)
    # Besides the residuals: the weights, their gradient and Adam's two moments.
    weights = sum(x.size * 4 for x in jax.tree.leaves(shapes["params"]))
    return Requirements(int(residuals + 4 * weights), forward_cost, encoding)


def multiply_adds(call: Any, *arguments: Any) -> int:
    """Counts the multiply-adds of convolutions and matrix products in a call.

    Unlike `complexity.count`, which counts modules as they are traced, this counts the
    body of a `lax.scan` once per iteration. Of a `lax.cond`, the most expensive branch
    counts; the body of a `lax.while_loop` counts once.

    Args:
        call: a function; it is traced, not computed.
        *arguments: pytrees of arrays or `jax.ShapeDtypeStruct`s.
    """
    return _count(jax.make_jaxpr(call)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inner = [
            _count(getattr(value, "jaxpr", value))
            for value in jax.tree.leaves(list(params.values()))
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            lhs, output = equation.invars[0].aval, equation.outvars[0].aval
            total += output.size * prod(lhs.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel, output = equation.invars[1].aval, equation.outvars[0].aval
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total += output.size * kernel.size // features
        elif name == "cond":
            total += max(inner)
        elif name == "scan":
            total += params["length"] * sum(inner)
        else:
            total += sum(inner)
    return total


def describe(
    stages: Sequence[Stage],
    network: Any,
    variables: Any,
    config: Config,
    *,
    videos: Sequence[FrameSource],
    start: int,
) -> str:
    """Describes the memory and time that the rest of a run needs, in one line.

    Warns if more memory is needed than is free.

    Args:
        stages: stages of the run.
        network: the network of the run.
        variables: its variables.
        config: config of the run.
        videos: videos that are kept in memory.
        start: number of steps already taken.

    Returns:
        The text; empty if no steps are left.
    """
    remaining = [
        (stage, stage.end - max(start, stage.begin))
        for stage in stages
        if stage.end > start
    ]
    if not remaining:
        return ""
    costs: dict[Any, Requirements] = {}  # equal stages are traced once
    for stage, _ in remaining:
        if _kind(stage) not in costs:
            cost = stage_requirements(stage, network, variables, config)
            costs[_kind(stage)] = cost
    height, width = config.data.size
    step = max(cost.memory for cost in costs.values())
    frames = sum(len(video.frames) for source in videos for video in source.videos)
    cached = 4 * height * width * frames
    available = _available_memory()
    on_cpu = jax.default_backend() == "cpu"
    free = "" if available is None else f" ({_gigabytes(available)} are free)"
    if available is not None and step + cached * on_cpu > available:
        _log.warning(
            "a step of %d clips at %dx%d takes about %s, more than is free%s, and the "
            "system may kill the run: lower train.batch_size or data.size",
            *(config.train.batch_size, height, width, _gigabytes(step), free),
        )
    line = (
        f"a step of {config.train.batch_size} clips at {height}x{width} takes about "
        f"{_gigabytes(step)}{free}, the videos up to {_gigabytes(cached)}"
    )
    if on_cpu:
        forward_rate = _matmul_rate() / _SLOWDOWN
        step_rate = forward_rate / _PASSES
        slowest = max(cost.multiply_adds / step_rate for cost in costs.values())
        total = sum(
            costs[_kind(stage)].multiply_adds / step_rate * steps
            + costs[_kind(stage)].encoding / forward_rate
            for stage, steps in remaining
        )
        line += (
            f"; roughly {_duration(slowest)} a step, {_duration(total)} for "
            f"{sum(steps for _, steps in remaining)} steps without validation, give or "
            "take a factor of two; compiling comes first and takes a minute or more"
        )
    return line


def _kind(stage: Stage) -> Any:
    """Returns what the cost of a stage depends on."""
    return stage.part, stage.recipe, stage.cached_views, stage.corrupted_views


def _batch(stage: Stage) -> dict[str, Any]:
    """Returns the shapes of a batch; see `ClipLoader.batch`."""
    loader: Any = stage.loader
    rows, length, past = loader.rows, loader.spec.length, loader.spec.num_past
    scored = (length,) if loader.spec.score_all else ()
    return _shapes(
        frames=((rows, length, *loader.size, 3), np.uint8),
        frames_mask=((rows, length), np.bool_),
        past=((rows, past, *loader.size, 3), np.uint8),
        past_mask=((rows, past), np.bool_),
        label=((rows, *scored, *loader.size), np.uint8),
    )


def _cached_batch(stage: Stage, form: CachedForm, maps: Any) -> dict[str, Any]:
    """Returns the shapes of a batch of a cache.

    Args:
        stage: a stage that caches its frames.
        form: form of the cached frames.
        maps: shapes of the maps of one frame, [1, h, w, c].
    """
    loader: Any = stage.loader
    rows, length, past = loader.rows, loader.spec.length, loader.spec.num_past

    def map_shape(name: str, *leading: int) -> tuple[tuple[int, ...], Any]:
        one = getattr(maps, name)
        return (rows, *leading, *one.shape[1:]), form.dtype or one.dtype

    if form.recipe == "features":
        return _shapes(
            **{name: map_shape(name) for name in FEATURES},
            window=map_shape("top", length - 1),
            window_mask=((rows, length - 1), np.bool_),
            past=map_shape("top", past),
            past_mask=((rows, past), np.bool_),
            label=((rows, *loader.size), np.uint8),
        )
    return _shapes(
        **{name: map_shape(name, length) for name in form.names},
        frames_mask=((rows, length), np.bool_),
        label=((rows, length, *loader.size), np.uint8),
    )


def _shapes(**arrays: tuple[tuple[int, ...], Any]) -> dict[str, Any]:
    return {
        name: jax.ShapeDtypeStruct(shape, dtype)
        for name, (shape, dtype) in arrays.items()
    }


def _matmul_rate() -> float:
    """Measures the multiply-adds per second of matrix products on this machine."""
    matrix, multiply = jnp.ones((_MATRIX, _MATRIX)), jax.jit(jnp.matmul)
    return peak_matmul_rate(
        lambda: multiply(matrix, matrix).block_until_ready(), _MATRIX
    )


def _available_memory() -> int | None:
    """Returns the free bytes of the device's memory; None if unknown."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")  # a container's limit
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):  # not Linux, or no container
        pass
    return min(limits, default=None)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s"
