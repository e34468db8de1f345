"""Base class of the baseline networks: padding and training clips.

Shapes: `B` videos, `T` frames, `H W` frame size, `H' W'` the same rounded up to
multiples of 32, `C` classes.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.config import Config
from dmnet_jax.models.protocol import (
    ClipBatch,
    Output,
    VideoSegmenter,
    where_videos,
)
from dmnet_jax.nn.resizing import enlarge

MULTIPLE = 32


class ComparedNetwork(VideoSegmenter):
    """A baseline network of the paper's Table 1.

    A subclass implements `update`, one time step, and `init_memory` if it has a memory.
    Frames of any size are padded at the bottom and right to multiples of 32. If frames
    were padded, logits are resized to the padded frame and cropped.
    """

    @classmethod
    def from_config(cls, config: Config, **fields: Any) -> Self:
        """Builds the network that a config describes.

        Args:
            config: config of the run.
            **fields: class count, device axis, dtype, and the options of `NETWORKS`.

        Raises:
            ValueError: the network needs an extra that is not installed.
        """
        return cls(**fields)

    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        """One time step.

        Args:
            memory: memory of the frames before, leaves [B, ...]; zeros at the start.
            frames: uint8 RGB [B, H', W', 3]; H' and W' are multiples of 32.
            train: enables dropout and uses batch statistics in batch norm.

        Returns:
            The updated memory and logits [B, h, w, C].
        """
        raise NotImplementedError

    @nn.nowrap
    def reset(self, memory: Any, what: Array) -> Any:
        # These networks remember only recent frames, so both resets clear everything.
        empty = jax.tree.map(jnp.zeros_like, memory)
        return where_videos(what >= mem.RESET_LOCAL, empty, memory)

    def step(
        self,
        memory: Any,
        frame: Array,
        *,
        active: Array | None = None,
        train: bool = False,
    ) -> tuple[Any, Output]:
        height, width = frame.shape[1:3]
        after, logits = self.update(memory, pad_frames(frame), train=train)
        if active is not None:
            after = where_videos(active, after, memory)
        return after, frame_output(logits, (height, width))

    def __call__(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Output]:
        if frames.shape[1] == 1:
            memory, output = self.step(memory, frames[:, 0], train=train)
            return memory, jax.tree.map(lambda x: x[:, None], output)
        # Running statistics are carried from frame to frame if they are updated.
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
        batch: ClipBatch,
        key: Array,
        *,
        train: bool = False,
        batch_statistics: bool = False,
        memory_gradient: bool = False,
    ) -> Output:
        """See `VideoSegmenter.clip`.

        There is no global memory, so `batch.past` is ignored. These networks are always
        trained as a whole, so `train` also selects batch statistics;
        `batch_statistics` and `memory_gradient` are ignored.
        """
        videos, length, height, width = batch.frames.shape[:4]
        memory = self.init_memory(videos, (height, width), key)
        for t in range(length - 1):
            present = batch.frames_mask[:, t]
            memory, _ = self.step(
                memory, batch.frames[:, t], active=present, train=train
            )
            memory = jax.lax.stop_gradient(memory)
        return self.step(memory, batch.frames[:, -1], train=train)[1]


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Rounds (H, W) up to multiples of 32."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return height, width


def pad_frames(frames: Array) -> Array:
    """Pads [B, H, W, 3] -> [B, H', W', 3] by repeating the last row and column."""
    size = frames.shape[1], frames.shape[2]
    extra = [new - old for new, old in zip(padded_size(size), size, strict=True)]
    if not any(extra):
        return frames
    return jnp.pad(frames, ((0, 0), *((0, n) for n in extra), (0, 0)), mode="edge")


def frame_output(logits: Array, size: tuple[int, int]) -> Output:
    """Converts logits of padded frames to the `Output` of frames of `size`."""
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
