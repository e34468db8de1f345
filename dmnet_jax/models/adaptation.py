"""Adaptation of a network to the look of other video, without labels.

Batch norm subtracts the mean and divides by the deviation that each channel had in
training. A different camera, light or recorder shifts both. Here, the running
statistics move toward those of the given frames, as in training steps without a
gradient (adaptive batch normalization: Li et al., "Revisiting Batch Normalization for
Practical Domain Adaptation", 2016). No weight changes.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dmnet_jax.models.protocol import ClipBatch, VideoSegmenter

BATCH = 8
"""Number of frames per batch. A batch moves the statistics by a tenth."""
BATCHES = 2
"""Number of batches. With more, the network becomes a little better on the video that
it is adapted to, and can become worse on others."""
FRAMES = BATCH * BATCHES
"""Number of frames that `adapt` needs."""


def adapt(
    model: VideoSegmenter, variables: dict[str, Any], frames: ArrayLike
) -> dict[str, Any]:
    """Returns the variables with batch-norm statistics moved toward those of frames.

    Args:
        model: the network.
        variables: its variables.
        frames: uint8 [`FRAMES`, H, W, 3], in order of time and spread over the video.

    Raises:
        ValueError: the frames have another shape, or the network has no batch norm.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.dtype != np.uint8 or len(frames) != FRAMES:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; they must be uint8 "
            f"[{FRAMES}, H, W, 3]"
        )
    if not jax.tree.leaves(variables.get("batch_stats")):
        raise ValueError("the network has no batch norm that could be adapted")
    statistics = variables["batch_stats"]
    for start in range(BATCHES):
        # The frames of a batch are spread over the whole video.
        inputs = {**variables, "batch_stats": statistics}
        statistics = _updated(model.single_frame(), inputs, frames[start::BATCHES])
    return {**variables, "batch_stats": jax.device_get(statistics)}


@partial(jax.jit, static_argnames="model")
def _updated(model: VideoSegmenter, variables: Any, frames: Array) -> Any:
    """Returns the running statistics after one batch of frames [B, H, W, 3]."""
    frames = frames[:, None]
    mask = jnp.ones(frames.shape[:2], bool)
    key = jax.random.key(0)
    _, updates = model.apply(
        *(variables, ClipBatch(frames, mask, frames[:, :0], mask[:, :0]), key),
        method="clip",
        train=True,
        batch_statistics=True,
        mutable=["batch_stats", "auxiliary"],
        rngs={"dropout": key},
    )
    return updates["batch_stats"]
