"""What a recipe needs of this machine, told before it is compiled, and roughly.

Memory is what the backward pass keeps of the forward pass, by JAX's own account while
it traces the step: on CPUs 6 to 18 % above what XLA then takes (DMNet at 128x160 and
256x320), and 16.4 GB for the paper's recipe, which was seen to take 16. Time is by
multiply-adds and how fast this machine multiplies matrices; seen were 0.6 to 1.1 of
what is told (2 cores of an AMD EPYC, jax 0.10.2, 2026-11-26).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.frames import FrameSource
from dmnet_jax import complexity, training
from dmnet_jax.config import Config
from dmnet_jax.machine import product_peak
from dmnet_jax.models.forward import FORWARD
from dmnet_jax.training.stages import Stage

# The backward pass costs twice the forward pass; of the speed at which matrices are
# multiplied, a network's training reaches about a quarter.
_PASSES, _SLOWER = 3, 4
_PRODUCT = 1024


_log = logging.getLogger(__name__)


class Needs(NamedTuple):
    """Of one step on all of this process's rows.

    Attributes:
        memory: bytes.
        multiply_adds: of the forward pass.
    """

    memory: int
    multiply_adds: int


def of_stage(stage: Stage, network: Any, variables: Any, config: Config) -> Needs:
    """What a step of a stage needs; the step is traced, not compiled.

    Args:
        stage: its loader has rows, a size and a clip's `spec`, as `ClipLoader` has.
        network: of the run.
        variables: its variables, or their shapes.
        config: of the run.
    """
    alone = stage.part == "single_frame"
    model = network.single_frame() if alone else network
    model = model.clone(axis_name=None)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), variables)
    trained, frozen = training.split_params(shapes["params"], stage.part)
    others = {name: part for name, part in shapes.items() if name != "params"}
    kept = 0

    def step(trained: Any, frozen: Any, others: Any, batch: Any, key: Any) -> Any:
        def loss(trained: Any) -> Any:
            return training.forward_loss(
                {**others, "params": {**frozen, **trained}},
                batch,
                key,
                model=model,
                forward=FORWARD[stage.recipe],
                truncate=config.train.rollout_truncate,
                batch_statistics=stage.part != "memory",
                memory_gradient=config.train.memory_gradient and stage.part != "memory",
                optim=config.optim,
            )

        value, backward, _ = jax.vjp(loss, trained, has_aux=True)
        nonlocal kept
        kept = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))
        return value

    key = jax.eval_shape(lambda: jax.random.key(0))
    counted = complexity.count(step, trained, frozen, others, _batch(stage), key)
    # Weights, their gradient and Adam's two averages beside what is kept.
    weights = sum(x.size * 4 for x in jax.tree.leaves(shapes["params"]))
    return Needs(int(kept + 4 * weights), counted.multiply_adds)


def told(
    stages: Sequence[Stage],
    network: Any,
    variables: Any,
    config: Config,
    *,
    videos: Sequence[FrameSource],
    start: int,
) -> str:
    """Memory and time of what is left of a run, for people; empty if nothing is.

    Warns if the memory is more than is free.

    Args:
        stages: of the run.
        network: of the run.
        variables: its variables.
        config: of the run.
        videos: that are kept in memory.
        start: steps taken already.
    """
    left = [
        (stage, stage.end - max(start, stage.begin))
        for stage in stages
        if stage.end > start
    ]
    found: dict[tuple[str, str], Needs] = {}
    for stage, _ in left:
        if (stage.part, stage.recipe) not in found:
            needs = of_stage(stage, network, variables, config)
            found[stage.part, stage.recipe] = needs
    if not found:
        return ""
    height, width = config.data.size
    step = max(needs.memory for needs in found.values())
    frames = sum(len(video.frames) for source in videos for video in source.videos)
    cached = 4 * height * width * frames
    available = _available()
    on_cpu = jax.default_backend() == "cpu"
    free = "" if available is None else f" ({_gigabytes(available)} are free)"
    if available is not None and step + cached * on_cpu > available:
        _log.warning(
            "a step of %d clips at %dx%d takes about %s, more than is free%s, and the "
            "system may end the run: lower train.batch_size or data.size",
            *(config.train.batch_size, height, width, _gigabytes(step), free),
        )
    line = (
        f"a step of {config.train.batch_size} clips at {height}x{width} takes about "
        f"{_gigabytes(step)}{free}, the videos up to {_gigabytes(cached)}"
    )
    if on_cpu:
        speed = _speed() / (_PASSES * _SLOWER)
        each = {kind: needs.multiply_adds / speed for kind, needs in found.items()}
        total = sum(each[stage.part, stage.recipe] * steps for stage, steps in left)
        line += (
            f"; roughly {_clock(max(each.values()))} a step, {_clock(total)} for "
            f"{sum(steps for _, steps in left)} steps without validation, give or take "
            "a factor of two; compiling comes first and takes a minute or more"
        )
    return line


def _batch(stage: Stage) -> dict[str, Any]:
    """Shapes of a batch; see `ClipLoader.batch`."""
    loader: Any = stage.loader
    rows, length, past = loader.rows, loader.spec.length, loader.spec.num_past
    scored = (length,) if loader.spec.score_all else ()
    shapes = {
        "frames": ((rows, length, *loader.size, 3), np.uint8),
        "frames_mask": ((rows, length), np.bool_),
        "past": ((rows, past, *loader.size, 3), np.uint8),
        "past_mask": ((rows, past), np.bool_),
        "label": ((rows, *scored, *loader.size), np.uint8),
    }
    return {
        name: jax.ShapeDtypeStruct(shape, kind)
        for name, (shape, kind) in shapes.items()
    }


def _speed() -> float:
    """Multiply-adds a second of this machine's matrix products."""
    matrix, multiply = jnp.ones((_PRODUCT, _PRODUCT)), jax.jit(jnp.matmul)
    return product_peak(lambda: multiply(matrix, matrix).block_until_ready(), _PRODUCT)


def _available() -> int | None:
    """Bytes that the device's memory still has, as far as the system tells."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")  # a container's limit
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, IndexError):  # not Linux, or no container
        pass
    return min(found, default=None)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _clock(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.1f} s"
