"""Max-pooling with gradients that are fast on CPU.

XLA's gradient of a windowed maximum, select-and-scatter, runs serially on CPU. Here the
gradients are hand-written or come from elementwise maxima.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def max_pool_5x5(x: Array) -> Array:
    """Max-pooling with 5x5 windows and stride 1: [B, H, W, C] -> same shape.

    Computed separably: five rows, then five columns. Each gradient goes to the first
    position that holds the maximum, as in PyTorch.
    """
    return _max_of_5(_max_of_5(x, 1), 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_5(x: Array, axis: int) -> Array:
    window, pads = [1, 1, 1, 1], [(0, 0)] * 4
    window[axis], pads[axis] = 5, (2, 2)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1, 1), pads)


def _max_of_5_forward(x: Array, axis: int) -> tuple[Array, Array]:
    """Also returns the index 0..4 of each window's first maximum, int8 [B, H, W, C]."""
    y: Any = _max_of_5(x, axis)
    padded = _padded(x, axis, -jnp.inf)
    first = jnp.full(x.shape, 4, jnp.int8)
    for k in (3, 2, 1, 0):
        first = jnp.where(_window(padded, axis, k) == y, jnp.int8(k), first)
    return y, lax.optimization_barrier(first)


def _max_of_5_backward(axis: int, first: Array, gradient: Array) -> tuple[Array]:
    """Each position gathers from the five windows that contain it."""
    chosen = _padded(first, axis, -1)
    padded = _padded(gradient, axis, 0)
    total: Any = 0
    for k in range(5):  # the window in which it is the k-th starts 2 - k further on
        hit = _window(chosen, axis, 4 - k) == k
        total += jnp.where(hit, _window(padded, axis, 4 - k), 0)
    return (total,)


def _padded(x: Array, axis: int, value: float) -> Array:
    """Pads by two on both sides.

    The barrier keeps XLA from fusing the padding with the arithmetic, which would then
    not be vectorized (4x slower).
    """
    widths = [(0, 0)] * 4
    widths[axis] = (2, 2)
    return lax.optimization_barrier(jnp.pad(x, widths, constant_values=value))


def _window(padded: Array, axis: int, k: int) -> Array:
    """The k-th of the five elements in each position's window."""
    return lax.slice_in_dim(padded, k, k + padded.shape[axis] - 4, axis=axis)


_max_of_5.defvjp(_max_of_5_forward, _max_of_5_backward)


def max_pool_2x2(x: Array) -> Array:
    """Max-pooling with 2x2 windows: [B, H, W, C] -> [B, H/2, W/2, C], for even sizes.

    Implemented as a maximum over axes, whose gradient is fast on CPU.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def max_pool_3x3(x: Array) -> Array:
    """Max-pooling with 3x3 windows, stride 2 and padding 1.

    [B, H, W, C] -> [B, H/2, W/2, C].
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    height, width = x.shape[1], x.shape[2]
    rows = [padded[:, i : i + height : 2] for i in range(3)]
    tallest = jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
    columns = [tallest[:, :, i : i + width : 2] for i in range(3)]
    return jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])
