"""Gradients of matrix products and convolutions as matrix products in loops.

XLA's CPU backend computes the gradient of a kernel as a convolution whose window is the
whole map, or as a product fused with the producers of its operands. Both are slow.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], tuple[int, int]]

NARROW = 32
"""Output channels of a 3x3 convolution up to which nine shifted copies are small."""


def of_matmul(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """Gradients for x [B, ..., C] and kernel [C, D] of `x @ kernel`.

    Args:
        x: [B, ..., C].
        kernel: [C, D].
        gradient: [B, ..., D], the gradient of the product.
    """
    return gradient @ kernel.T, _summed_products(x, gradient)


def _summed_products(x: Array, gradient: Array) -> Array:
    """Sum over positions of x [B, ..., C] times gradient [B, ..., D]: [C, D].

    The loop prevents a slow fusion: the product needs one operand transposed, and
    XLA's CPU backend would fuse the transpose with the producers of the operand, which
    then run column by column (10x slower than the product itself).
    """
    positions = x[0, ..., 0].size
    parts = x.shape[0] * (1 if positions % 2 else 2)  # at least two, to stay a loop
    x = x.reshape(parts, -1, x.shape[-1])
    gradient = gradient.reshape(x.shape[0], -1, gradient.shape[-1])

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return total + pair[0].T @ pair[1], None

    total = jnp.zeros((x.shape[-1], gradient.shape[-1]), x.dtype)
    return lax.scan(add, total, (x, gradient))[0]


def of_convolve(
    x: Array, kernel: Array, pads: Pads, stride: int, dilation: int, gradient: Array
) -> tuple[Array, Array]:
    """Gradients of a convolution for its input and kernel.

    Args:
        x: [B, H, W, C], the input.
        kernel: [h, w, C, D].
        pads: (rows before, rows after), (columns before, columns after).
        stride: stride in both directions.
        dilation: dilation of the kernel in both directions.
        gradient: [B, H', W', D], the gradient of the output.
    """
    padded_by_one = (pads, stride, dilation) == (((1, 1), (1, 1)), 1, 1)
    if padded_by_one and kernel.shape[:2] == (3, 3) and kernel.shape[3] <= NARROW:
        return _of_narrow_3x3(x, kernel, gradient)

    def convolve(x: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    (to_x,) = jax.linear_transpose(convolve, x)(gradient)
    return to_x, _of_taps(x, kernel.shape, pads, stride, dilation, gradient)


def _of_narrow_3x3(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """Uses two matrix products with nine shifted copies of the output's gradient.

    The copies are small because there are few output channels. XLA's CPU gradient is
    3x slower.
    """
    height, width, inputs = x.shape[1:]
    outputs = kernel.shape[-1]
    padded = jnp.pad(gradient, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [
        padded[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width]
        for i in range(3)
        for j in range(3)
    ]
    stacked = jnp.concatenate(shifts, -1)  # [B, H, W, 9 outputs]
    matrix = kernel.transpose(2, 0, 1, 3).reshape(inputs, 9 * outputs)
    to_x, to_kernel = of_matmul(x, matrix, stacked)
    return to_x, to_kernel.reshape(inputs, 3, 3, outputs).transpose(1, 2, 0, 3)


def _of_taps(
    x: Array,
    shape: tuple[int, ...],
    pads: Pads,
    stride: int,
    dilation: int,
    gradient: Array,
) -> Array:
    """Gradient of a kernel [h, w, C, D], one tap at a time.

    XLA's CPU backend would compute it as a convolution whose window is the map, which
    is slower: 1420 against 151 ms for 3x3 taps of 64 channels and a map of 4x128x160,
    29 against 17 ms for 256 channels and 4x16x20 (2 cores of an AMD EPYC, jax 0.10.2,
    2026-11-25). See `_summed_products` for why this is a loop.
    """
    height, width, inputs, outputs = shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
    flat = gradient.reshape(-1, outputs)

    def add(tap: Any, taps: Array) -> Array:
        corner = (0, tap // width * dilation, tap % width * dilation, 0)
        seen = lax.dynamic_slice(padded, corner, (len(x), rows, columns, inputs))
        seen = seen[:, ::stride, ::stride].reshape(-1, inputs)
        return lax.dynamic_update_index_in_dim(taps, seen.T @ flat, tap, 0)

    taps = jnp.zeros((height * width, inputs, outputs), x.dtype)
    taps = lax.fori_loop(0, height * width, add, taps)
    return taps.reshape(shape)
