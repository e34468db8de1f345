"""The compiled step of a stream: frame and memory in, labels and memory out.

    program = compile(model, variables, size=(512, 640), streams=4)
    memory = program.init_memory(jax.random.key(0))
    memory, labeled = program.step(memory, frames, active=active)

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

from data_pipelines.io.images import size_fault
from dmnet_jax.models.protocol import Memories, Output
from dmnet_jax.nn.resizing import enlarge, likeliest
from dmnet_jax.streaming.letterbox import MAX_LABELS

NO_LABEL = 255
OUTPUTS = ("labels", "confidence", "similarity", "admitted")
"""Of an exported step, after the memory's leaves, in this order."""


class Labeled(struct.PyTreeNode):
    """What a step says of each stream's frame.

    Attributes:
        labels: uint8 [B, h, w], the likeliest class at the program's label size;
            `NO_LABEL` for a stream without a frame.
        probabilities: float32 [B, h, w, num_classes], if the program gives them.
        confidence: float32 [B], the paper's r.
        similarity: float32 [B], the paper's s; -inf while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
        trust: float32 [B, H/4, W/4] of the network's size, as `models.Output` has it;
            None from an exported file and of a network without a prediction state.
    """

    labels: Array
    probabilities: Array | None
    confidence: Array
    similarity: Array
    admitted: Array
    trust: Array | None = None


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


class Program:
    """A compiled step, from `compile` or from an exported file.

    Args:
        interface: shapes.
        init: PRNG key -> empty memory.
        call: (memory, frames, active, reset) -> (memory, `Labeled`).
        thresholds: "min_confidence" and "max_similarity"; None if not known.
        with_thresholds: the same program with others, nothing compiled; None if it
            has none to change.
        memories: which the network has.
    """

    def __init__(
        self,
        interface: Interface,
        init: Callable[[Array], Any],
        call: Callable[..., tuple[Any, Labeled]],
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
    ) -> tuple[Any, Labeled]:
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
    model: Any,
    variables: Any,
    *,
    size: tuple[int, int],
    streams: int = 1,
    label_size: tuple[int, int] | None = None,
    probabilities: bool = False,
) -> Program:
    """One optimized inference program from trained variables.

    The network's own `step` with its variables folded: the same labels as `evaluation`
    gives, up to rounding.

    Args:
        model: any `models.protocol.VideoSegmenter`.
        variables: its "params", "batch_stats" and, of a DMNet, "thresholds".
        size: (H, W) of the frames, multiples of 32.
        streams: B, videos that are stepped together.
        label_size: of the label maps; None: the frames' size.
        probabilities: whether to return them too.

    Raises:
        ValueError: a size or number that cannot be.
    """
    interface = Interface(size, streams, model.num_classes, label_size or size)
    model, variables = model.folded(variables)
    weights = jax.device_put(variables)
    memory, *inputs = input_shapes(model, interface)

    def call(weights: Any, *inputs: Any) -> tuple[Any, Labeled]:
        return labeled_step(model, weights, interface, probabilities, *inputs)

    compiled = jax.jit(call, donate_argnums=1).lower(weights, memory, *inputs).compile()
    init = jax.jit(lambda key: model.init_memory(streams, size, key))

    def program_of(weights: Any, thresholds: dict[str, float] | None) -> Program:
        def with_thresholds(values: dict[str, float]) -> Program:
            arrays = jax.tree.map(np.float32, values)
            changed = {**weights, "thresholds": jax.device_put(arrays)}
            return program_of(changed, jax.tree.map(float, arrays))

        return Program(
            interface,
            init,
            lambda *inputs: compiled(weights, *inputs),
            thresholds,
            None if thresholds is None else with_thresholds,
            model.memories,
        )

    thresholds = variables.get("thresholds")
    return program_of(weights, thresholds and jax.tree.map(float, thresholds))


def input_shapes(model: Any, interface: Interface) -> tuple[Any, ...]:
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
        lambda: model.init_memory(streams, interface.size, jax.random.key(0))
    )
    return (
        memory,
        jax.ShapeDtypeStruct((streams, height, width, 3), jnp.uint8),
        jax.ShapeDtypeStruct((streams,), jnp.bool_),
        jax.ShapeDtypeStruct((streams,), jnp.uint8),
    )


def labeled_step(
    model: Any,
    variables: Any,
    interface: Interface,
    probabilities: bool,
    memory: Any,
    frames: Array,
    active: Array,
    reset: Array,
) -> tuple[Any, Labeled]:
    """The network's step after a reset, its logits resized and made labels."""
    memory = model.reset(memory, reset)
    memory, output = _step(model, variables, memory, frames, active)
    size = interface.label_size
    labels = likeliest(output.logits, size)
    return memory, Labeled(
        labels=jnp.where(active[:, None, None], labels, NO_LABEL),
        probabilities=(
            jax.nn.softmax(enlarge(output.logits, size)) if probabilities else None
        ),
        confidence=output.confidence,
        similarity=output.similarity,
        admitted=output.admitted,
        trust=output.trust,
    )


def _step(
    model: Any, variables: Any, memory: Any, frames: Array, active: Array
) -> tuple[Any, Output]:
    def step(memory: Any, frames: Array, active: Array) -> Any:
        return model.apply(variables, memory, frames, active=active, method="step")

    if not model.lockstep or len(frames) == 1:
        return step(memory, frames, active)

    # Streams are at different frames, so each is stepped by itself.
    def alone(given: Any) -> Any:
        stepped = step(*jax.tree.map(lambda x: x[None], given))
        return jax.tree.map(lambda x: x[0], stepped)

    return jax.lax.map(alone, (memory, frames, active))
