"""Bilinear resizing of maps and logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


@jax.jit
def upsample_2x(x: Array) -> Array:
    """Bilinear upsampling with aligned corners: [B, H, W, C] -> [B, 2H, 2W, C].

    With n samples, output 2k is k / (2n - 1) before sample k, and output 2k + 1 is
    (n - 1 - k) / (2n - 1) after it.
    """
    for axis in (1, 2):
        n = x.shape[axis]
        shape = [1, 1, 1, 1]
        shape[axis] = n
        k = jnp.arange(n, dtype=x.dtype).reshape(shape)
        before, after = k / (2 * n - 1), (n - 1 - k) / (2 * n - 1)
        first = lax.slice_in_dim(x, 0, 1, axis=axis)
        last = lax.slice_in_dim(x, n - 1, n, axis=axis)
        previous = jnp.concatenate(
            [first, lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis
        )
        following = jnp.concatenate([lax.slice_in_dim(x, 1, n, axis=axis), last], axis)
        even = x + (previous - x) * before
        odd = x + (following - x) * after
        doubled = list(x.shape)
        doubled[axis] = 2 * n
        x = jnp.stack([even, odd], axis + 1).reshape(doubled)
    return x


def mean_2x2(x: Array) -> Array:
    """Averages blocks of 2x2: [B, H, W, C] -> [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def resize(logits: Array, size: tuple[int, int], method: str = "bilinear") -> Array:
    """Resizes logits [B, h, w, C] to [B, *size, C], with half-pixel centers.

    Training, evaluation and streaming all use this function. See `jax.image.resize` for
    `method`; the authors' code uses "nearest".
    """
    shape = (logits.shape[0], *size, logits.shape[-1])
    return jax.image.resize(logits, shape, method, antialias=False)


@functools.partial(jax.jit, static_argnames="size")
def resized_argmax(logits: Array, size: tuple[int, int]) -> Array:
    """Argmax of bilinearly resized logits [B, h, w, C]: uint8 [B, *size].

    Processes one class plane at a time and compares it while its rows are resized, so
    the resized logits are never stored. The planes have the memory layout of the
    labels.
    """
    (batch, height, width, classes), (rows, columns) = logits.shape, size
    # Columns are resized by a matrix product, because indexing within rows is slow. The
    # barriers keep XLA from fusing everything into a loop that resizes rows repeatedly.
    first, second, part = _neighbors(width, columns)
    matrix = np.zeros((width, columns), logits.dtype)
    np.add.at(matrix, (first, np.arange(columns)), 1 - part)
    np.add.at(matrix, (second, np.arange(columns)), part)
    planes = lax.optimization_barrier(logits.transpose(0, 3, 1, 2).reshape(-1, width))
    planes = lax.optimization_barrier(jnp.matmul(planes, matrix, precision="highest"))
    planes = planes.reshape(batch, classes, height, columns)

    first, second, part = _neighbors(height, rows)
    part = part.astype(logits.dtype)[:, None]

    def plane(index: int) -> Array:
        one = planes[:, index]
        return one[:, first] * (1 - part) + one[:, second] * part

    best = plane(0)
    label = jnp.zeros(best.shape, jnp.uint8)
    for index in range(1, classes):
        value = plane(index)
        label = jnp.where(value > best, jnp.uint8(index), label)
        best = jnp.maximum(best, value)
    return label


def _neighbors(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each output pixel, its two samples and the weight of the second."""
    center = (np.arange(size) + 0.5) * count / size - 0.5
    before = np.floor(center).astype(int)
    first, second = (np.clip(before + k, 0, count - 1) for k in (0, 1))
    return first, second, center - before
