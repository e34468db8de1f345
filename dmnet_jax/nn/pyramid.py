"""Pyramid pooling (Zhao et al., PSPNet, CVPR 2017) with PyTorch's numerics."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.convolution import norm_relu
from dmnet_jax.nn.layers import Dense1x1

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """Averages over 1, 2, 3 and 6 bins per side, each projected to C/4 channels.

    [B, H, W, C] -> four maps [B, H, W, C/4].
    """

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        height, width, channels = x.shape[1:]
        branches = []
        for bins in BINS:
            y = _resample(x, average(height, bins), average(width, bins))
            dense = Dense1x1(channels // 4, dtype=self.dtype, name=f"dense{bins}")
            y = norm_relu(
                dense(y), f"norm{bins}", train=train, axis_name=self.axis_name
            )
            y = _resample(y, interpolation(bins, height), interpolation(bins, width))
            branches.append(y)
        return branches


def average(size: int, bins: int) -> np.ndarray:
    """Returns the matrix float32 [bins, size] of adaptive average pooling.

    Bin i covers floor(i size / bins) to ceil((i + 1) size / bins). Bins may overlap.
    """
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        first, end = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, first:end] = 1 / (end - first)
    return matrix


def interpolation(size: int, target: int) -> np.ndarray:
    """Returns the matrix float32 [target, size] of linear interpolation.

    Corners are aligned.
    """
    places = np.linspace(0, size - 1, target)
    distance = np.abs(places[:, None] - np.arange(size))
    return np.maximum(0, 1 - distance).astype(np.float32)


def _resample(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Resamples [B, H, W, C] -> [B, h, w, C] with matrices [h, H] and [w, W]."""
    x = jnp.einsum("hH,bHWc->bhWc", rows.astype(x.dtype), x)
    return jnp.einsum("wW,bhWc->bhwc", columns.astype(x.dtype), x)
