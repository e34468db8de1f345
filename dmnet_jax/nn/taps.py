"""A convolution whose kernel's gradient is taken a tap at a time, on CPU."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Array,
    kernel: Array,
    stride: int = 1,
    pads: Pads = ((0, 0), (0, 0)),
    dilation: int = 1,
) -> Array:
    """x [B, H, W, C] with kernel [h, w, C, D]: [B, H', W', D].

    Args:
        x: of the kernel's dtype.
        kernel: taps lie `dilation` pixels apart.
        stride: in both directions.
        pads: rows before and after, columns before and after.
        dilation: in both directions.
    """
    if jax.default_backend() != "cpu":
        return _convolve(x, kernel, stride, pads, dilation)
    return _with_tap_gradients(x, kernel, stride, pads, dilation)


def _convolve(x: Array, kernel: Array, stride: int, pads: Pads, dilation: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=DIMENSIONS,
    )


_with_tap_gradients = jax.custom_vjp(_convolve, nondiff_argnums=(2, 3, 4))


def _taps_forward(
    x: Array, kernel: Array, stride: int, pads: Pads, dilation: int
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride, pads, dilation), (x, kernel)


def _taps_backward(
    stride: int,
    pads: Pads,
    dilation: int,
    residuals: tuple[Array, Array],
    gradient: Array,
) -> tuple[Array, Array]:
    """The kernel's gradient a tap at a time: what it saw times the output's gradient.

    As a convolution, whose window is the map, it takes XLA's CPU backend longer: 1420
    against 151 ms for 3x3 taps of 64 channels and a map of 4x128x160, 29 against 17 ms
    for 256 channels and 4x16x20 (2 cores of an AMD EPYC, jax 0.10.2, 2026-11-25). In a
    loop, for the reason that `layers._kernel_gradient` gives.
    """
    x, kernel = residuals
    (to_x,) = jax.linear_transpose(
        lambda x: _convolve(x, kernel, stride, pads, dilation), x
    )(gradient)
    height, width, inputs, outputs = kernel.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
    flat = gradient.reshape(-1, outputs)

    def add(tap: Any, taps: Array) -> Array:
        corner = (0, tap // width * dilation, tap % width * dilation, 0)
        seen = lax.dynamic_slice(padded, corner, (len(x), rows, columns, inputs))
        seen = seen[:, ::stride, ::stride].reshape(-1, inputs)
        return lax.dynamic_update_index_in_dim(taps, seen.T @ flat, tap, 0)

    taps = jnp.zeros((height * width, inputs, outputs), kernel.dtype)
    taps = lax.fori_loop(0, height * width, add, taps)
    return to_x, taps.reshape(kernel.shape)


_with_tap_gradients.defvjp(_taps_forward, _taps_backward)
