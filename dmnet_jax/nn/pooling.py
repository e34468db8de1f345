"""Max-pooling whose gradient is written out or taken of plain maxima.

XLA's own gradient of a window's maximum, select-and-scatter, is serial on CPU.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def max_pool_5x5(x: Array) -> Array:
    """Largest value of each 5x5 neighborhood, stride 1: [B, H, W, C] -> same.

    Separable: five rows, then five columns. The gradient of each goes to the first
    position that holds the maximum, as in PyTorch.
    """
    return _max_of_5(_max_of_5(x, 1), 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_5(x: Array, axis: int) -> Array:
    window, pads = [1, 1, 1, 1], [(0, 0)] * 4
    window[axis], pads[axis] = 5, (2, 2)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1, 1), pads)


def _max_of_5_forward(x: Array, axis: int) -> tuple[Array, Array]:
    """Also which of each window's five is its first maximum, int8 like x."""
    y: Any = _max_of_5(x, axis)
    padded = _padded(x, axis, -jnp.inf)
    first = jnp.full(x.shape, 4, jnp.int8)
    for k in (3, 2, 1, 0):
        first = jnp.where(_window(padded, axis, k) == y, jnp.int8(k), first)
    return y, lax.optimization_barrier(first)


def _max_of_5_backward(axis: int, first: Array, gradient: Array) -> tuple[Array]:
    """Each position gathers from the five windows that it lies in.

    XLA's own gradient, select-and-scatter, is serial on CPU.
    """
    chosen = _padded(first, axis, -1)
    padded = _padded(gradient, axis, 0)
    total: Any = 0
    for k in range(5):  # as the k-th of its window, the window is 2 - k further on
        hit = _window(chosen, axis, 4 - k) == k
        total += jnp.where(hit, _window(padded, axis, 4 - k), 0)
    return (total,)


def _padded(x: Array, axis: int, value: float) -> Array:
    """Two more on both sides.

    The barrier keeps padding out of the arithmetic's fusions: fused with it they are
    not vectorized (4x slower).
    """
    widths = [(0, 0)] * 4
    widths[axis] = (2, 2)
    return lax.optimization_barrier(jnp.pad(x, widths, constant_values=value))


def _window(padded: Array, axis: int, k: int) -> Array:
    """The k-th of each position's five."""
    return lax.slice_in_dim(padded, k, k + padded.shape[axis] - 4, axis=axis)


_max_of_5.defvjp(_max_of_5_forward, _max_of_5_backward)


def max_pool_2x2(x: Array) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, C], for even sizes.

    As a maximum over an axis: XLA's gradient of a window's is serial on CPU.
    """
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def max_pool_3x3(x: Array) -> Array:
    """Windows of 3x3 with stride 2, padded by one: [B, H, W, C] -> [B, H/2, W/2, C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    height, width = x.shape[1], x.shape[2]
    rows = [padded[:, i : i + height : 2] for i in range(3)]
    tallest = jnp.maximum(jnp.maximum(rows[0], rows[1]), rows[2])
    columns = [tallest[:, :, i : i + width : 2] for i in range(3)]
    return jnp.maximum(jnp.maximum(columns[0], columns[1]), columns[2])
