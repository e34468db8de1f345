"""The form in which a network is streamed: its weights, its memory and one step.

Any `VideoSegmenter` streams by its own `step`. A network that has a faster form of the
same step registers it here; DMNet's is folded (`folding`, `network`).
"""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import jax
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.protocol import Output, where_videos
from dmnet_jax.streaming import network
from dmnet_jax.streaming.folding import fold


class Memories(NamedTuple):
    """Which memories of a stream can be looked into; the state may hold more.

    Attributes:
        local: of the last few frames.
        global_: of admitted frames.
    """

    local: bool = True
    global_: bool = True


class StreamForm(NamedTuple):
    """What a program is compiled from.

    Attributes:
        weights: a pytree, given to every step.
        init_memory: (streams, PRNG key) -> empty memory, leaves [B, ...].
        step: (weights, memory, frames uint8 [B, H, W, 3], active bool [B], reset
            uint8 [B]) -> (memory, `Output`). Each stream forgets what `reset` says,
            then takes its frame if it is active.
        memories: which can be looked into.
        thresholds: of admission; None for a network that has none.
    """

    weights: Any
    init_memory: Callable[[int, Array], Any]
    step: Callable[..., tuple[Any, Output]]
    memories: Memories
    thresholds: dict[str, float] | None


@singledispatch
def stream_form(model: Any, variables: Any, size: tuple[int, int]) -> StreamForm:
    """The form of a network for frames of `size` = (H, W).

    Streams are stepped one after the other: a network may do for all videos of a batch
    what the state of the first asks for, and streams are not in step.
    """

    def init_memory(streams: int, key: Array) -> Any:
        return model.init_memory(streams, size, key)

    def one(weights: Any, memory: Any, frame: Array) -> tuple[Any, Output]:
        alone = jax.tree.map(lambda x: x[None], (memory, frame))
        stepped = model.apply(weights, *alone, method="step")
        return jax.tree.map(lambda x: x[0], stepped)

    def step(
        weights: Any, memory: Any, frames: Array, active: Array, reset: Array
    ) -> tuple[Any, Output]:
        streams = frames.shape[0]
        # All that such a network remembers is recent, so either reset forgets it.
        fresh = init_memory(streams, jax.random.key(0))
        memory = where_videos(reset >= mem.RESET_LOCAL, fresh, memory)
        if streams == 1:
            after, output = model.apply(weights, memory, frames, method="step")
        else:
            after, output = jax.lax.map(
                lambda given: one(weights, *given), (memory, frames)
            )
        return where_videos(active, after, memory), output

    # VGG has no batch norm, and so no statistics.
    names = ("params", "batch_stats")
    weights = {name: variables[name] for name in names if name in variables}
    return StreamForm(weights, init_memory, step, Memories(False, False), None)


@stream_form.register
def _folded(model: DMNet, variables: Any, size: tuple[int, int]) -> StreamForm:
    weights = fold(model, variables)

    def step(
        weights: Any, memory: Any, frames: Array, active: Array, reset: Array
    ) -> tuple[Any, Output]:
        memory = jax.vmap(mem.reset)(memory, reset)
        return network.step(model, weights, memory, frames, active)

    return StreamForm(
        weights,
        lambda streams, key: network.init_memory(model, streams, size, key),
        step,
        Memories(model.local != "none", model.global_memory),
        jax.tree.map(float, weights["thresholds"]),
    )
