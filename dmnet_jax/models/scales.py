"""Segmentation of a frame at several sizes, to average the predictions.

Not in the paper. A network is better at some sizes of an instrument than at others;
`DMNet.scales` are further sizes of the input, relative to that of the frame. The
memories receive the mean of the predictions, so only networks whose memories correct
predictions (`DMNet.only_corrects`) can use them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dmnet_jax.models.features import Features
from dmnet_jax.nn.resizing import resize

_MIN_SCALE, _MAX_SCALE = 0.25, 4.0


def at_scales(model: Any, scales: Sequence[float]) -> Any:
    """Returns a network that also segments frames at other sizes.

    Args:
        model: a `DMNet.only_corrects`.
        scales: sizes relative to that of the frame, each 0.25 to 4.

    Raises:
        ValueError: a scale is invalid, or the network cannot use them.
    """
    for scale in scales:
        if not _MIN_SCALE <= scale <= _MAX_SCALE:
            raise ValueError(
                f"scales: {scale:g} is not from {_MIN_SCALE:g} to {_MAX_SCALE:g}"
            )
    if not getattr(model, "only_corrects", False):
        raise ValueError(
            "scales need a DMNet whose memories only correct its predictions; this "
            "network reads them in its decoder, or is another one (without its memory, "
            "any DMNet can use scales)"
        )
    return model.clone(scales=tuple(scales))


def rescaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns (H, W) times `scale`, rounded to multiples of 32, at least 32."""
    height, width = (32 * max(1, round(side * scale / 32)) for side in size)
    return height, width


def rescaled_probabilities(model: Any, frames: Array) -> Array:
    """Sums the class probabilities of frames segmented at `DMNet.scales`.

    Args:
        model: a bound `DMNet` without memories in its decoder.
        frames: float32 [N, H, W, 3], normalized.

    Returns:
        float32 [N, H/4, W/4, num_classes], in 0..len(scales).
    """
    size = height, width = frames.shape[1], frames.shape[2]
    quarter = height // 4, width // 4
    total = jnp.zeros((len(frames), *quarter, model.num_classes))
    for scale in model.scales:
        shape = (len(frames), *rescaled_size(size, scale), 3)
        # With antialiasing, as pictures are resized when they are loaded.
        x = jax.image.resize(frames, shape, "linear")
        features = model.encode_normalized(x)
        logits, _ = decode(model, features.top, features)
        total += resize(jax.nn.softmax(logits), quarter)
    return total


def decode(model: Any, x: Array, features: Features) -> tuple[Array, Array]:
    """Decodes frames, and averages the predictions of all sizes.

    Args:
        model: a bound `DMNet`.
        x: [N, h, w, width], `Features.top`, or what the memories made of it.
        features: features of the frames.

    Returns:
        The logits, float32 [N, H/4, W/4, num_classes], with `DMNet.scales` the
        logarithm of the mean probabilities; and the decoder's map, [N, H/8, W/8,
        width], of the frames' own size.
    """
    logits, fine = model.decoder(x, *features.finer)
    logits = logits.astype(jnp.float32)
    if features.rescaled is not None:
        mean = (jax.nn.softmax(logits) + features.rescaled) / (1 + len(model.scales))
        logits = jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))
    return logits, fine
