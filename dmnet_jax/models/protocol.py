"""The one interface of every video segmenter.

Training, evaluation, streaming, exports and reports know a network by this alone.
`B` videos, `T` frames, `H W` frame size, `C` classes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from dmnet_jax.nn.layers import Padding


class Output(struct.PyTreeNode):
    """One frame's result. A call over a whole clip adds a time axis after `B`.

    Attributes:
        logits: float32 [B, h, w, C], at a size of the network's own.
        confidence: float32 [B], the paper's r; 0 is certain, lower is less so.
        similarity: float32 [B], the paper's s to the latest admitted frame; -inf
            while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
        trust: float32 [B, h, w], 0..1: how far each pixel of the frame was trusted
            over the predictions carried from the frames before; 1 in a first frame.
            None of a network that carries none.
    """

    logits: Array
    confidence: Array
    similarity: Array
    admitted: Array
    trust: Array | None = None


class ClipBatch(struct.PyTreeNode):
    """Training clips with one scored frame, the last.

    Attributes:
        frames: uint8 [B, T, H, W, 3], the current frame last.
        frames_mask: bool [B, T]; False where the video had not begun.
        past: uint8 [B, n, H, W, 3], earlier frames that a global memory shall hold.
        past_mask: bool [B, n].
    """

    frames: Array
    frames_mask: Array
    past: Array
    past_mask: Array

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "ClipBatch":
        """Of a loader's batch, which holds labels as well."""
        names = ("frames", "frames_mask", "past", "past_mask")
        return cls(*(batch[name] for name in names))


class Memories(NamedTuple):
    """Which memories of a network can be looked into; its state may hold more.

    Attributes:
        local: of the last few frames.
        global_: of admitted frames.
    """

    local: bool = True
    global_: bool = True


class VideoSegmenter(nn.Module):
    """A Flax module that segments video, one frame or one clip at a time.

    `step`, `clip` and `__call__` are applied with variables, as Flax has it:
    `model.apply(variables, memory, frames)`. The memory is a pytree whose leaves lead
    with [B]; without memory it is empty.

    Attributes:
        num_classes: outputs, background included.
        axis_name: device axis over which batch norm is synchronized in training.
        dtype: of features; logits are float32 always.
        encoder: whose weights of the encoder are imitated ("keras" or "torch").
        mobilenet: whether the encoder is the MobileNetV2 whose ImageNet weights ship.
        lockstep: whether all videos of a batch must be at the same frame.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32
    encoder: Padding = "torch"
    mobilenet: ClassVar[bool] = False
    lockstep: ClassVar[bool] = False

    @property
    def memories(self) -> Memories:
        """Which memories it has that admit frames or keep the last ones."""
        return Memories(local=False, global_=False)

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> Any:
        """The memory before a video's first frame, of frames `size` = (H, W)."""
        return {}

    @nn.nowrap
    def reset(self, memory: Any, what: Array) -> Any:
        """Forgets for each video what int [B] of `memory.KEEP`... says."""
        raise NotImplementedError

    def step(
        self,
        memory: Any,
        frame: Array,
        *,
        active: Array | None = None,
        train: bool = False,
    ) -> tuple[Any, Output]:
        """One frame of each video, uint8 [B, H, W, 3].

        Args:
            memory: of the frames before this one.
            frame: RGB.
            active: bool [B], which videos have a frame. The memory of the others is
                left as it is, and their output means nothing. None: all.
            train: dropout on, and batch norm by the batch.
        """
        raise NotImplementedError

    def __call__(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        """Rolls `step` over frames uint8 [B, T, H, W, 3]; outputs lead with [B, T]."""
        raise NotImplementedError

    def clip(
        self,
        batch: ClipBatch,
        key: Array,
        *,
        train: bool = False,
        batch_statistics: bool = False,
        memory_gradient: bool = False,
    ) -> Output:
        """The last frame's result after those before it, for training.

        Args:
            batch: the clips.
            key: of random choices.
            train: dropout on.
            batch_statistics: normalize by the batch and update running statistics
                (mutable "batch_stats"); otherwise the running ones are used.
            memory_gradient: train the encoder through remembered frames too.
        """
        raise NotImplementedError

    @nn.nowrap
    def single_frame(self) -> Self:
        """The same network without its memories, of the same parameters."""
        return self

    @nn.nowrap
    def folded(self, variables: Any) -> tuple[Self, Any]:
        """A network and variables that give the same in fewer operations.

        For inference. Up to rounding; its memory is the same.
        """
        # VGG has no batch norm, and so no statistics.
        names = ("params", "batch_stats", "thresholds")
        return self, {name: variables[name] for name in names if name in variables}


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
