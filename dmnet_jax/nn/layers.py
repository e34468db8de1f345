"""Basic layers shared by all networks.

All maps are NHWC: `B` batch, `H W` size, `C` channels. Numerics follow PyTorch
(explicit padding), so that imported weights give the same results.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.operators import Window, convolve, depthwise_3x3, matmul

Padding = Literal["torch", "keras"]

# PyTorch's default for convolutions. With a larger gain, the residual sums of the
# decoder's chained pooling make the first logits and gradients very large.
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def pad_3x3(size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Returns the rows (or columns) of padding before and after for a 3x3 window.

    PyTorch pads by one on both sides. Keras' "SAME" pads a stride-2 convolution of an
    even size only at the end, which shifts every feature by half a pixel.
    """
    if padding == "torch" or stride == 1:
        return 1, 1
    return (0, 1) if size % 2 == 0 else (1, 1)


class Dense1x1(nn.Module):
    """1x1 convolution: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = KERNEL_INIT
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        y = matmul(x.astype(self.dtype), kernel[0, 0].astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += bias.astype(self.dtype)
        return y


class Conv3x3(nn.Module):
    """3x3 convolution: [B, H, W, C] -> [B, H/stride, W/stride, features].

    With a dilation above 1, the stride is 1 and the size does not change.
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
        window = _window(x, self.stride, self.padding)
        if self.dilation > 1:
            wide = self.dilation, self.dilation
            window = Window((wide, wide), dilation=self.dilation)
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), window)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += bias.astype(self.dtype)
        return y


class Depthwise3x3(nn.Module):
    """Depthwise 3x3 convolution: [B, H, W, C] -> [B, H/stride, W/stride, C]."""

    stride: int = 1
    use_bias: bool = False
    padding: Padding = "torch"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", KERNEL_INIT, (3, 3, 1, channels))
        window = _window(x, self.stride, self.padding)
        y = depthwise_3x3(x.astype(self.dtype), kernel.astype(self.dtype), window)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (channels,))
            y += bias.astype(self.dtype)
        return y


def _window(x: Array, stride: int, padding: Padding) -> Window:
    rows, columns = (pad_3x3(n, stride, padding) for n in x.shape[1:3])
    return Window((rows, columns), stride)


@jax.jit
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return jnp.clip(x, 0, 6)
