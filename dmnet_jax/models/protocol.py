"""The one face of every video segmenter.

Evaluation, streaming and reports know a network by this alone. `B` videos, `H W` frame
size, `C` classes.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array


class Output(struct.PyTreeNode):
    """One frame's result. A call over a whole clip adds a time axis after `B`.

    Attributes:
        logits: float32 [B, h, w, C], at a size of the network's own.
        confidence: float32 [B], the paper's r; 0 is certain, lower is less so.
        similarity: float32 [B], the paper's s to the latest admitted frame; -inf
            while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
    """

    logits: Array
    confidence: Array
    similarity: Array
    admitted: Array


def where_videos(condition: Array, new: Any, old: Any) -> Any:
    """`new` for the videos where condition bool [B] holds, `old` for the others.

    Args:
        condition: bool [B].
        new: a pytree, leaves [B, ...].
        old: of the same structure, shapes and dtypes.
    """
    return jax.tree.map(
        lambda x, y: jnp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, y),
        new,
        old,
    )


class VideoSegmenter(Protocol):
    """A Flax module that segments video, one frame or one clip at a time.

    `step` and `__call__` are applied with variables, as Flax has it:
    `model.apply(variables, memory, frames)`. What is true of a network without memory
    is an empty pytree as its memory.
    """

    num_classes: int

    @property
    def global_memory(self) -> bool:
        """Whether there is a memory that frames are admitted to."""
        ...

    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> Any:
        """The memory before a video's first frame; leaves lead with [B]."""
        ...

    def step(self, memory: Any, frame: Array) -> tuple[Any, Output]:
        """One frame of each video, uint8 [B, H, W, 3]."""
        ...

    def __call__(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        """Frames of each video in order, uint8 [B, T, H, W, 3]."""
        ...
