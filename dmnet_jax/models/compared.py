"""What the compared networks share: the one face, padding, and training clips.

Shapes: `B` videos, `T` frames, `H W` frame size, `H' W'` the same rounded up to
multiples of 32, `C` classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.models.protocol import Output, where_videos
from dmnet_jax.nn.resizing import enlarge

MULTIPLE = 32


class ComparedNetwork(nn.Module):
    """A network of the paper's Table 1 behind `models.protocol.VideoSegmenter`.

    A subclass gives `update`, one time step, and `init_memory` if it has a memory.
    Frames of any size are padded at their lower and right edges to multiples of 32;
    where that was done, logits are enlarged to the padded frame and cut back.

    Attributes:
        num_classes: outputs, background included.
        axis_name: device axis over which batch norm is synchronised in training.
        dtype: of features; logits are float32 always.
    """

    num_classes: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @property
    def global_memory(self) -> bool:
        """Nothing is admitted to a global memory, as there is none."""
        return False

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> Any:
        """An empty pytree: a single-frame network remembers nothing."""
        return {}

    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        """One time step.

        Args:
            memory: of the frames before this one, leaves [B, ...].
            frames: uint8 RGB [B, H', W', 3], sides multiples of 32.
            train: dropout on, batch norm by the batch.

        Returns:
            The memory with this frame in it, and logits [B, h, w, C].
        """
        raise NotImplementedError

    def step(
        self, memory: Any, frame: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        """One frame of each video: frame uint8 [B, H, W, 3], any size."""
        height, width = frame.shape[1:3]
        memory, logits = self.update(memory, pad_frames(frame), train=train)
        return memory, frame_output(logits, (height, width))

    def __call__(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        """Rolls `step` over frames [B, T, H, W, 3]; outputs lead with [B, T]."""
        if frames.shape[1] == 1:
            memory, output = self.step(memory, frames[:, 0], train=train)
            return memory, jax.tree.map(lambda x: x[:, None], output)
        # Running statistics go from frame to frame if they change at all.
        carried: dict[str, Any] = {"variable_carry": "batch_stats"} if train else {}
        roll = nn.scan(
            lambda module, memory, frame: module.step(memory, frame, train=train),
            variable_broadcast=("params", *(() if train else ("batch_stats",))),
            split_rngs={"params": False, "dropout": True},
            **carried,
        )
        memory, outputs = roll(self, memory, jnp.moveaxis(frames, 1, 0))
        return memory, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)

    def clip(
        self,
        frames: Array,
        frames_mask: Array,
        past: Array,
        past_mask: Array,
        key: Array,
        *,
        train: bool = False,
        batch_statistics: bool = False,
        memory_gradient: bool = False,
    ) -> Output:
        """A training clip: the last frame's result after those before it.

        Args:
            frames: uint8 [B, T, H, W, 3], the current frame last.
            frames_mask: bool [B, T]; False where the video had not begun.
            past: not looked at, as `past_mask` and `memory_gradient` are not: they
                belong to a global memory.
            past_mask: see `past`.
            key: of random choices.
            train: dropout on.
            batch_statistics: normalise by the batch and update running statistics.
                These networks train whole, so it goes with `train`.
            memory_gradient: see `past`.
        """
        batch, length, *size = frames.shape[:4]
        memory = self.init_memory(batch, (size[0], size[1]), key)
        for t in range(length - 1):
            after, _ = self.step(memory, frames[:, t], train=train)
            after = jax.lax.stop_gradient(after)
            memory = where_videos(frames_mask[:, t], after, memory)
        return self.step(memory, frames[:, -1], train=train)[1]


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) rounded up to multiples of 32."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return height, width


def pad_frames(frames: Array) -> Array:
    """[B, H, W, 3] -> [B, H', W', 3]; the last row and column are repeated."""
    size = frames.shape[1], frames.shape[2]
    extra = [new - old for new, old in zip(padded_size(size), size, strict=True)]
    if not any(extra):
        return frames
    return jnp.pad(frames, ((0, 0), *((0, n) for n in extra), (0, 0)), mode="edge")


def frame_output(logits: Array, size: tuple[int, int]) -> Output:
    """The result of frames of `size` that were padded."""
    logits = logits.astype(jnp.float32)
    if padded_size(size) != size:
        logits = enlarge(logits, padded_size(size))[:, : size[0], : size[1]]
    confidence = jax.vmap(mem.confidence)(jax.nn.softmax(logits))
    return Output(
        logits,
        confidence,
        similarity=jnp.full_like(confidence, -jnp.inf),
        admitted=jnp.zeros(confidence.shape, bool),
    )
