"""Depthwise 3x3 convolution as nine shifted multiply-adds, with its gradient.

XLA's CPU backend has no fast path for grouped convolutions. The gradient is implemented
by hand because automatic differentiation would store nine shifted copies of the input,
each as large as the output, and reduce each separately. Here only the input is stored.
"""

import functools
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], tuple[int, int]]


def shifted(x: Array, kernel: Array, pads: Pads, stride: int) -> Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, 1, C]: [B, H/stride, W/stride, C]."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = (
        (n + sum(p) - 3) // stride + 1 for n, p in zip(x.shape[1:3], pads, strict=True)
    )
    return _sum(
        padded[:, _range(i, height, stride), _range(j, width, stride)] * kernel[i, j, 0]
        for i, j in _taps()
    )


def _taps() -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(3) for j in range(3))


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _range(first: int, count: int, step: int) -> slice:
    return slice(first, first + (count - 1) * step + 1, step)


def gradient(
    x: Array, kernel: Array, pads: Pads, stride: int, cotangent: Array
) -> tuple[Array, Array]:
    """Gradients for x and kernel of `shifted`, given the cotangent [B, H/s, W/s, C]."""
    if stride == 1:
        flipped = kernel[::-1, ::-1]
        to_x = shifted(cotangent, flipped, ((1, 1), (1, 1)), 1)
    else:
        (top, _), (left, _) = pads
        to_padded = _spread(cotangent, kernel)
        to_x = to_padded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return to_x, _to_kernel(x, cotangent, pads, stride)


def _spread(gradient: Array, kernel: Array) -> Array:
    """Maps the gradient [B, h, w, C] at stride 2 to the input [B, 2h + 2, 2w + 2, C].

    The input is padded. Even input positions see the first and last tap, odd ones the
    middle tap. The four combinations are computed separately and interleaved.
    """
    batch, height, width, channels = gradient.shape
    padded = lax.optimization_barrier(
        jnp.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    )
    # (tap, offset of its h + 1 outputs in `padded`) for even and for odd positions
    taps = (((0, 1), (2, 0)), ((1, 1),))

    def kind(rows: int, columns: int) -> Array:
        return _sum(
            padded[:, top : top + height + 1, left : left + width + 1] * kernel[i, j, 0]
            for i, top in taps[rows]
            for j, left in taps[columns]
        )

    rows = [jnp.stack([kind(row, 0), kind(row, 1)], 3) for row in range(2)]
    return jnp.stack(rows, 2).reshape(batch, 2 * height + 2, 2 * width + 2, channels)


def _to_kernel(x: Array, gradient: Array, pads: Pads, stride: int) -> Array:
    """Sums the shifted input times the gradient over positions, for each tap.

    Loops over output rows with nine accumulators that stay in the cache. Nine
    reductions over whole maps take four times as long.
    """
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    batch, height, width, channels = gradient.shape

    def add_row(index: Array, totals: tuple[Array, ...]) -> tuple[Array, ...]:
        image, row = index // height, index % height
        above = lax.dynamic_slice(
            padded,
            (image, row * stride, 0, 0),
            (1, 3, padded.shape[2], channels),
        )[0]
        own = lax.dynamic_slice(gradient, (image, row, 0, 0), (1, 1, width, channels))[
            0, 0
        ]
        return tuple(
            total + above[i, _range(j, width, stride)] * own
            for total, (i, j) in zip(totals, _taps(), strict=True)
        )

    exact = jnp.promote_types(gradient.dtype, jnp.float32)
    zeros = tuple(jnp.zeros((width, channels), exact) for _ in range(9))
    totals = lax.fori_loop(0, batch * height, add_row, zeros)
    sums = [total.sum(0) for total in totals]
    return jnp.stack(sums).reshape(3, 3, 1, channels).astype(gradient.dtype)
