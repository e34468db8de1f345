"""The layers every network here is made of, in the form XLA runs fastest.

All maps are NHWC. `B` batch, `H W` size, `C` channels. Numerics follow PyTorch
(explicit padding, aligned-corner bilinear) so that imported weights are exact.

This file, with `depthwise` and `taps`, is the one place where a formulation is chosen.
XLA's CPU backend has no fast path for grouped convolutions, 1x1 convolutions,
two-dimensional max-pooling or kernels' gradients, so there a depthwise convolution is
nine shifted multiply-adds, a 1x1 convolution is a matrix product, as is each tap of a
kernel's gradient, and a 5x5 maximum is taken a row and a column at a time. All are
equal to the plain operators up to rounding (the maximum bit for bit).
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from dmnet_jax.nn.depthwise import shifted_depthwise_3x3
from dmnet_jax.nn.taps import DIMENSIONS, convolve

Padding = Literal["torch", "keras"]

# PyTorch's default for convolutions. With a larger gain the sums of the decoder's
# residual pooling make the first logits, and so the first gradients, enormous.
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def pad_3x3(size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Rows (or columns) added before and after for a 3x3 window.

    PyTorch pads one on both sides; Keras' "SAME" pads a stride-2 convolution of an
    even size at the end only, which shifts every feature by half a pixel.
    """
    if padding == "torch" or stride == 1:
        return 1, 1
    return (0, 1) if size % 2 == 0 else (1, 1)


class Dense1x1(nn.Module):
    """1x1 convolution: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", KERNEL_INIT, (1, 1, x.shape[-1], self.features))
        y = _matmul(x.astype(self.dtype), kernel[0, 0].astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += bias.astype(self.dtype)
        return y


@jax.custom_vjp
def _matmul(x: Array, kernel: Array) -> Array:
    """x [B, H, W, C] times kernel [C, D]."""
    return x @ kernel


def _matmul_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(
    residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    return gradient @ kernel.T, _kernel_gradient(x, gradient)


def _kernel_gradient(x: Array, gradient: Array) -> Array:
    """Sum over positions of x [B, ..., C] times gradient [B, ..., D]: [C, D].

    In a loop of its own: the product needs one operand transposed, and XLA's CPU
    backend fuses that transposition with all that computed the operand, which then
    runs column by column (10x slower than the product itself).
    """
    positions = x[0, ..., 0].size
    parts = x.shape[0] * (1 if positions % 2 else 2)  # at least two, to stay a loop
    x = x.reshape(parts, -1, x.shape[-1])
    gradient = gradient.reshape(x.shape[0], -1, gradient.shape[-1])

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        return total + pair[0].T @ pair[1], None

    total = jnp.zeros((x.shape[-1], gradient.shape[-1]), x.dtype)
    return lax.scan(add, total, (x, gradient))[0]


_matmul.defvjp(_matmul_forward, _matmul_backward)


class Conv3x3(nn.Module):
    """3x3 convolution: [B, H, W, C] -> [B, H/stride, W/stride, features].

    With a dilation the stride is 1 and the size is kept.
    """

    features: int
    stride: int = 1
    use_bias: bool = False
    padding: Padding = "torch"
    dilation: int = 1
    kernel_init: nn.initializers.Initializer = KERNEL_INIT
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x, kernel_ = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.dilation > 1:
            wide = self.dilation, self.dilation
            y = convolve(x, kernel_, pads=(wide, wide), dilation=self.dilation)
        elif self.stride == 1 and self.features <= 32:
            y = _narrow_conv_3x3(x, kernel_)
        else:
            rows, columns = (
                pad_3x3(n, self.stride, self.padding) for n in x.shape[1:3]
            )
            y = convolve(x, kernel_, self.stride, (rows, columns))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += bias.astype(self.dtype)
        return y


@jax.custom_vjp
def _narrow_conv_3x3(x: Array, kernel: Array) -> Array:
    """Stride-1 convolution to few channels, with a gradient by matrix products.

    XLA's CPU gradient for such a kernel is 3x slower than two products with the
    nine shifts of the output's gradient, which are small as the outputs are few.
    """
    return convolve(x, kernel, pads=((1, 1), (1, 1)))


def _narrow_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _narrow_conv_3x3(x, kernel), (x, kernel)


def _narrow_backward(
    residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
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
    to_input = stacked @ matrix.T
    to_kernel = _kernel_gradient(x, stacked)
    return to_input, to_kernel.reshape(inputs, 3, 3, outputs).transpose(1, 2, 0, 3)


_narrow_conv_3x3.defvjp(_narrow_forward, _narrow_backward)


class Depthwise3x3(nn.Module):
    """3x3 convolution of each channel alone: [B, H, W, C] -> [B, H/s, W/s, C]."""

    stride: int = 1
    use_bias: bool = False
    padding: Padding = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", KERNEL_INIT, (3, 3, 1, channels))
        pads = [pad_3x3(n, self.stride, self.padding) for n in x.shape[1:3]]
        y = depthwise_3x3(
            x.astype(self.dtype), kernel.astype(self.dtype), self.stride, pads
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (channels,))
            y += bias.astype(self.dtype)
        return y


def depthwise_3x3(
    x: Array, kernel: Array, stride: int, pads: list[tuple[int, int]]
) -> Array:
    """Depthwise convolution of x [B, H, W, C] with kernel [3, 3, 1, C]."""
    if jax.default_backend() == "cpu":
        rows, columns = pads
        return shifted_depthwise_3x3(x, kernel, stride, (rows, columns))
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


def max_pool_5x5(x: Array) -> Array:
    """Largest value of each 5x5 neighbourhood, stride 1: [B, H, W, C] -> same.

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
    not vectorised (4x slower).
    """
    widths = [(0, 0)] * 4
    widths[axis] = (2, 2)
    return lax.optimization_barrier(jnp.pad(x, widths, constant_values=value))


def _window(padded: Array, axis: int, k: int) -> Array:
    """The k-th of each position's five."""
    return lax.slice_in_dim(padded, k, k + padded.shape[axis] - 4, axis=axis)


_max_of_5.defvjp(_max_of_5_forward, _max_of_5_backward)


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
    """Logits [B, h, w, C] at the size of labels, [B, *size, C] (half-pixel centres).

    Training, evaluation and streams all do it by this. `method` as in
    `jax.image.resize`; the authors' code has "nearest".
    """
    shape = (logits.shape[0], *size, logits.shape[-1])
    return jax.image.resize(logits, shape, method, antialias=False)


def likeliest(logits: Array, size: tuple[int, int]) -> Array:
    """The classes of `enlarge`d logits [B, h, w, C], bilinear: uint8 [B, *size].

    One class after the other, each a plane whose rows lie in memory as the labels do,
    and compared while its rows are enlarged: the enlarged logits are never stored.
    """
    (batch, height, width, classes), (rows, columns) = logits.shape, size
    # A product, as indices within rows are slow; barriers, or all is fused into one
    # loop that enlarges each row many times.
    first, second, part = _neighbours(width, columns)
    matrix = np.zeros((width, columns), logits.dtype)
    np.add.at(matrix, (first, np.arange(columns)), 1 - part)
    np.add.at(matrix, (second, np.arange(columns)), part)
    planes = lax.optimization_barrier(logits.transpose(0, 3, 1, 2).reshape(-1, width))
    planes = lax.optimization_barrier(jnp.matmul(planes, matrix, precision="highest"))
    planes = planes.reshape(batch, classes, height, columns)

    first, second, part = _neighbours(height, rows)
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


def _neighbours(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each half-pixel centre: the samples around it, and the second one's weight."""
    centre = (np.arange(size) + 0.5) * count / size - 0.5
    before = np.floor(centre).astype(int)
    first, second = (np.clip(before + k, 0, count - 1) for k in (0, 1))
    return first, second, centre - before


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)
