"""The common interface of all video segmentation networks.

Training, evaluation, streaming, export and reports use a network only through it.
Shapes: `B` videos, `T` frames, `H W` frame size, `C` classes.
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
    """Result for one frame. A call over a whole clip adds a time axis after `B`.

    Attributes:
        logits: float32 [B, h, w, C], at the network's output resolution.
        confidence: float32 [B], the paper's r; 0 is certain, lower is less certain.
        similarity: float32 [B], the paper's s to the latest admitted frame; -inf
            while nothing has been admitted.
        admitted: bool [B], whether the frame entered the global memory.
        trust: float32 [B, h, w], in 0..1: how far each pixel of the frame was trusted
            over the predictions carried from the frames before; 1 in the first frame.
            None for a network without a prediction state.
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
        frames_mask: bool [B, T]; False for frames before the start of the video.
        past: uint8 [B, n, H, W, 3], earlier frames to put into a global memory.
        past_mask: bool [B, n], which of the earlier frames are valid.
    """

    frames: Array
    frames_mask: Array
    past: Array
    past_mask: Array

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "ClipBatch":
        """Selects the clip fields of a loader's batch, which also has labels."""
        names = ("frames", "frames_mask", "past", "past_mask")
        return cls(*(batch[name] for name in names))


class Memories(NamedTuple):
    """Which inspectable memories a network has; it may carry other state as well.

    Attributes:
        local: whether it has a memory of the last frames.
        global_: whether it has a memory of admitted frames.
    """

    local: bool = True
    global_: bool = True


class VideoSegmenter(nn.Module):
    """A Flax module that segments video, one frame or one clip at a time.

    `step`, `clip` and `__call__` are called through Flax's
    `model.apply(variables, memory, frames)`. The memory is a pytree with leaves
    [B, ...]; it is empty for a network without memory.

    Attributes:
        num_classes: number of classes, including background.
        axis_name: device axis over which batch norm is synchronized in training.
        dtype: dtype of features; logits are always float32.
        encoder: framework whose encoder is reproduced ("keras" or "torch").
        mobilenet: whether the encoder is the MobileNetV2 whose ImageNet weights are
            shipped with the package.
        lockstep: whether all videos of a batch must be at the same frame index.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32
    encoder: Padding = "torch"
    mobilenet: ClassVar[bool] = False
    lockstep: ClassVar[bool] = False

    @property
    def memories(self) -> Memories:
        """Which memories the network has."""
        return Memories(local=False, global_=False)

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> Any:
        """Returns the memory before the first frame, for frames of `size` = (H, W)."""
        return {}

    @nn.nowrap
    def reset(self, memory: Any, what: Array) -> Any:
        """Resets the memory of each video.

        Args:
            memory: leaves [B, ...].
            what: int [B] of `memory.KEEP`, `RESET_LOCAL` or `RESET_ALL`.
        """
        raise NotImplementedError

    def step(
        self,
        memory: Any,
        frame: Array,
        *,
        active: Array | None = None,
        train: bool = False,
    ) -> tuple[Any, Output]:
        """Processes one frame of each video.

        Args:
            memory: memory of the frames before, leaves [B, ...].
            frame: uint8 RGB [B, H, W, 3].
            active: bool [B], which videos have a frame. The memory of the others does
                not change, and their output is undefined. None: all videos.
            train: enables dropout and uses batch statistics in batch norm.

        Returns:
            The updated memory and the frame's result.
        """
        raise NotImplementedError

    def __call__(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        """Scans `step` over frames uint8 [B, T, H, W, 3]; outputs are [B, T, ...]."""
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
        """Returns the result for the last frame of each clip, for training.

        Args:
            batch: the clips.
            key: PRNG key of random choices.
            train: enables dropout.
            batch_statistics: use batch statistics in batch norm and update the running
                statistics (mutable "batch_stats"); otherwise use the running ones.
            memory_gradient: also train the encoder through the remembered frames.
        """
        raise NotImplementedError

    @nn.nowrap
    def single_frame(self) -> Self:
        """Returns the same network without memories; it has the same parameters."""
        return self

    @nn.nowrap
    def folded(self, variables: Any) -> tuple[Self, Any]:
        """Returns an equivalent network and variables with fewer operations.

        For inference. Results are equal up to rounding; the memory has the same form.
        """
        # VGG has no batch norm, and so no statistics.
        names = ("params", "batch_stats", "thresholds")
        return self, {name: variables[name] for name in names if name in variables}


def where_videos(condition: Array, new: Any, old: Any) -> Any:
    """Selects `new` for the videos where `condition` is True, `old` for the others.

    Args:
        condition: bool [B].
        new: pytree with leaves [B, ...].
        old: pytree of the same structure, shapes and dtypes.
    """
    return jax.tree.map(
        lambda x, y: jnp.where(condition.reshape(-1, *[1] * (x.ndim - 1)), x, y),
        new,
        old,
    )
