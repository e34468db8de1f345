"""Bilinear resizing of maps and logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


@jax.jit
def upsample_2x(x: Array) -> Array:
    """Bilinear enlargement with aligned corners: [B, H, W, C] -> [B, 2H, 2W, C].

    With n samples, output 2k lies k / (2n - 1) before sample k and output 2k + 1
    lies (n - 1 - k) / (2n - 1) after it.
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


def enlarge(logits: Array, size: tuple[int, int], method: str = "bilinear") -> Array:
    """Logits [B, h, w, C] at the size of labels, [B, *size, C] (half-pixel centers).

    Training, evaluation and streams all do it by this. `method` as in
    `jax.image.resize`; the authors' code has "nearest".
    """
    shape = (logits.shape[0], *size, logits.shape[-1])
    return jax.image.resize(logits, shape, method, antialias=False)


@functools.partial(jax.jit, static_argnames="size")
def likeliest(logits: Array, size: tuple[int, int]) -> Array:
    """The classes of `enlarge`d logits [B, h, w, C], bilinear: uint8 [B, *size].

    One class after the other, each a plane whose rows lie in memory as the labels do,
    and compared while its rows are enlarged: the enlarged logits are never stored.
    """
    (batch, height, width, classes), (rows, columns) = logits.shape, size
    # A product, as indices within rows are slow; barriers, or all is fused into one
    # loop that enlarges each row many times.
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
    """Of each half-pixel center: the samples around it, and the second one's weight."""
    center = (np.arange(size) + 0.5) * count / size - 0.5
    before = np.floor(center).astype(int)
    first, second = (np.clip(before + k, 0, count - 1) for k in (0, 1))
    return first, second, center - before
