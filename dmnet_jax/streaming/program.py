"""The compiled step of a stream: frame and memory in, labels and memory out.

    program = compile(model, variables, size=(512, 640), streams=4)
    memory = program.init_memory(jax.random.key(0))
    memory, labelled = program.step(memory, frames, active=active)

Compiled ahead of time for one shape, so that it cannot be compiled again: another
shape is an error. The memory is donated and updated in place.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from data_pipelines.images import size_fault
from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn.resizing import enlarge, likeliest
from dmnet_jax.streaming import network
from dmnet_jax.streaming.folding import Weights, fold
from dmnet_jax.streaming.letterbox import MAX_LABELS

NO_LABEL = 255
OUTPUTS = ("labels", "confidence", "similarity", "admitted")
"""Of an exported step, after the memory's leaves, in this order."""


class Labelled(struct.PyTreeNode):
    """What a step says of each stream's frame.

    Attributes:
        labels: uint8 [B, h, w], the likeliest class at the program's label size;
            `NO_LABEL` for a stream without a frame.
        probabilities: float32 [B, h, w, num_classes], if the program gives them.
        confidence: float32 [B], the paper's r.
        similarity: float32 [B], the paper's s; -inf while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
    """

    labels: Array
    probabilities: Array | None
    confidence: Array
    similarity: Array
    admitted: Array


class Interface(NamedTuple):
    """What a program takes and gives.

    Attributes:
        size: (H, W) of its frames.
        streams: B.
        num_classes: background included.
        label_size: (h, w) of its labels.
    """

    size: tuple[int, int]
    streams: int
    num_classes: int
    label_size: tuple[int, int]


class Memories(NamedTuple):
    """Which memories a network has; its stream's state has both, one then unread.

    Attributes:
        local: of the last few frames.
        global_: of admitted frames.
    """

    local: bool = True
    global_: bool = True


class Program:
    """A compiled step, from `compile` or from an exported file.

    Args:
        interface: shapes.
        init: PRNG key -> empty memory.
        call: (memory, frames, active, reset) -> (memory, `Labelled`).
        thresholds: "min_confidence" and "max_similarity"; None if not known.
        with_thresholds: the same program with others, nothing compiled; None if it
            has none to change.
        memories: which the network has.
    """

    def __init__(
        self,
        interface: Interface,
        init: Callable[[Array], Any],
        call: Callable[..., tuple[Any, Labelled]],
        thresholds: dict[str, float] | None = None,
        with_thresholds: Callable[[dict[str, float]], "Program"] | None = None,
        memories: Memories = Memories(),  # noqa: B008  (immutable)
    ) -> None:
        self.interface = interface
        self.memories = memories
        self.init_memory = init
        self.thresholds = thresholds
        self.with_thresholds = with_thresholds
        self._call = call

    def step(
        self,
        memory: Any,
        frames: ArrayLike,
        *,
        active: ArrayLike | None = None,
        reset: ArrayLike | None = None,
    ) -> tuple[Any, Labelled]:
        """One frame of every active stream.

        Args:
            memory: donated: it is gone, use the one returned.
            frames: uint8 [B, H, W, 3], RGB.
            active: bool [B], which streams have a frame; the memory of the others is
                not touched. None: all.
            reset: uint8 [B] of `memory.KEEP`, `RESET_LOCAL`, `RESET_ALL`: what each
                stream, active or not, forgets before this frame. None: nothing.
        """
        streams = self.interface.streams
        active = np.ones(streams, bool) if active is None else active
        reset = np.zeros(streams, np.uint8) if reset is None else reset
        return self._call(memory, frames, active, reset)


def compile(
    model: DMNet,
    variables: Any,
    *,
    size: tuple[int, int],
    streams: int = 1,
    label_size: tuple[int, int] | None = None,
    probabilities: bool = False,
) -> Program:
    """One optimised inference program from trained variables.

    The same labels as `DMNet.step` and `evaluation` give, up to rounding: see
    `folding` and `network` for what is rewritten.

    Args:
        model: the network.
        variables: its "params", "batch_stats" and "thresholds".
        size: (H, W) of the frames, multiples of 32.
        streams: B, videos that are stepped together.
        label_size: of the label maps; None: the frames' size.
        probabilities: whether to return them too.

    Raises:
        ValueError: a size or number that cannot be.
    """
    interface = Interface(size, streams, model.num_classes, label_size or size)
    weights = jax.device_put(fold(model, variables))
    memory, *inputs = input_shapes(model, interface)

    def call(weights: Weights, *inputs: Any) -> tuple[Any, Labelled]:
        return labelled_step(model, weights, interface, probabilities, *inputs)

    compiled = jax.jit(call, donate_argnums=1).lower(weights, memory, *inputs).compile()
    init = jax.jit(lambda key: network.init_memory(model, streams, size, key))

    def program_of(weights: Weights) -> Program:
        def with_thresholds(values: dict[str, float]) -> Program:
            arrays = jax.tree.map(np.float32, values)
            return program_of({**weights, "thresholds": jax.device_put(arrays)})

        return Program(
            interface,
            init,
            lambda *inputs: compiled(weights, *inputs),
            jax.tree.map(float, weights["thresholds"]),
            with_thresholds,
            Memories(model.local != "none", model.global_memory),
        )

    return program_of(weights)


def input_shapes(model: DMNet, interface: Interface) -> tuple[Any, ...]:
    """Of memory, frames, active and reset.

    Raises:
        ValueError: a size or number that cannot be.
    """
    (height, width), streams = interface.size, interface.streams
    if height < 32 or width < 32 or height % 32 or width % 32:
        raise ValueError(
            f"size is {height}x{width}; both sides must be multiples of 32"
        )
    if streams < 1 or min(interface.label_size) < 1:
        raise ValueError(
            f"streams is {streams} and label_size {interface.label_size}; "
            "they must be positive"
        )
    fault = size_fault(*interface.label_size, MAX_LABELS)
    if fault:
        raise ValueError(f"label_size: {fault}")
    memory = jax.eval_shape(
        lambda: network.init_memory(model, streams, interface.size, jax.random.key(0))
    )
    return (
        memory,
        jax.ShapeDtypeStruct((streams, height, width, 3), jnp.uint8),
        jax.ShapeDtypeStruct((streams,), jnp.bool_),
        jax.ShapeDtypeStruct((streams,), jnp.uint8),
    )


def labelled_step(
    model: DMNet,
    weights: Weights,
    interface: Interface,
    probabilities: bool,
    memory: Any,
    frames: Array,
    active: Array,
    reset: Array,
) -> tuple[Any, Labelled]:
    """`network.step` after a reset, its logits enlarged and made labels."""
    memory = jax.vmap(mem.reset)(memory, reset)
    memory, output = network.step(model, weights, memory, frames, active)
    size = interface.label_size
    labels = likeliest(output.logits, size)
    return memory, Labelled(
        labels=jnp.where(active[:, None, None], labels, NO_LABEL),
        probabilities=(
            jax.nn.softmax(enlarge(output.logits, size)) if probabilities else None
        ),
        confidence=output.confidence,
        similarity=output.similarity,
        admitted=output.admitted,
    )
