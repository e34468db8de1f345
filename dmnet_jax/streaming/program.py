"""The compiled step of a stream: frame and memory in, labels and memory out.

    program = compile(model, variables, size=(512, 640), streams=4)
    memory = program.init_memory(jax.random.key(0))
    memory, labeled = program.step(memory, frames, active=active)

The step is compiled ahead of time for one shape, so it never recompiles: any other
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
from dmnet_jax.nn.resizing import resize, resized_argmax
from dmnet_jax.streaming.letterbox import MAX_LABELS

NO_LABEL = 255
OUTPUTS = ("labels", "confidence", "similarity", "admitted")
"""Outputs of an exported step, in this order, after the leaves of the memory."""


class Labeled(struct.PyTreeNode):
    """Result of a step for each stream's frame.

    Attributes:
        labels: uint8 [B, h, w], argmax over classes at the program's label size;
            `NO_LABEL` for a stream without a frame.
        probabilities: float32 [B, h, w, num_classes]; None if the program does not
            return them.
        confidence: float32 [B], the paper's r.
        similarity: float32 [B], the paper's s; -inf while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
        trust: float32 [B, H/4, W/4], see `models.protocol.Output`. None for exported
            programs and networks without a prediction state.
    """

    labels: Array
    probabilities: Array | None
    confidence: Array
    similarity: Array
    admitted: Array
    trust: Array | None = None


class Interface(NamedTuple):
    """Input and output sizes of a program.

    Attributes:
        size: (H, W) of the frames.
        streams: B, the number of streams.
        num_classes: number of classes, including background.
        label_size: (h, w) of the label maps.
    """

    size: tuple[int, int]
    streams: int
    num_classes: int
    label_size: tuple[int, int]


class Program:
    """A compiled step, from `compile` or from an exported file.

    Args:
        interface: input and output sizes.
        init: function from a PRNG key to an empty memory.
        call: function (memory, frames, active, reset) -> (memory, `Labeled`).
        thresholds: "min_confidence" and "max_similarity"; None if not known.
        with_thresholds: function that returns the same program with other thresholds,
            without recompiling; None if the thresholds cannot be changed.
        memories: which memories the network has.
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
        """Processes one frame of every active stream.

        Args:
            memory: memory of the frames before. It is donated; use the returned one.
            frames: uint8 [B, H, W, 3], RGB.
            active: bool [B], which streams have a frame; the memory of the others does
                not change. None: all streams.
            reset: uint8 [B] of `memory.KEEP`, `RESET_LOCAL` or `RESET_ALL`: what each
                stream, active or not, forgets before this frame. None: nothing.

        Returns:
            The updated memory and the result.
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
    """Compiles an optimized inference program from trained variables.

    The program is the network's own `step` with folded variables. Its labels equal
    those of `evaluation` up to rounding.

    Args:
        model: any `models.protocol.VideoSegmenter`.
        variables: "params", "batch_stats" and, for DMNet, "thresholds".
        size: (H, W) of the frames, multiples of 32.
        streams: B, the number of videos that are stepped together.
        label_size: (h, w) of the label maps. None: the size of the frames.
        probabilities: whether to return class probabilities as well.

    Raises:
        ValueError: a size or number is invalid.
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
    """Returns the shapes and dtypes of memory, frames, active and reset.

    Raises:
        ValueError: a size or number is invalid.
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
    """Resets the memory, runs the network's step and converts logits to labels."""
    memory = model.reset(memory, reset)
    memory, output = _step(model, variables, memory, frames, active)
    size = interface.label_size
    labels = resized_argmax(output.logits, size)
    return memory, Labeled(
        labels=jnp.where(active[:, None, None], labels, NO_LABEL),
        probabilities=(
            jax.nn.softmax(resize(output.logits, size)) if probabilities else None
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

    # The streams are at different frames, so each one is stepped separately.
    def step_one(inputs: Any) -> Any:
        result = step(*jax.tree.map(lambda x: x[None], inputs))
        return jax.tree.map(lambda x: x[0], result)

    return jax.lax.map(step_one, (memory, frames, active))
