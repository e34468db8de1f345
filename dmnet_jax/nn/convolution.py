"""General and transposed convolutions, used by the baseline networks.

NHWC with PyTorch's numerics, as in `layers.py`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.batch_norm import BatchNorm
from dmnet_jax.nn.layers import KERNEL_INIT
from dmnet_jax.nn.operators import Window, convolve

# He initialization, for convolutions with ReLU but without batch norm, as in
# torchvision's VGG. With PyTorch's default, the signal vanishes after ten of them.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Conv(nn.Module):
    """Convolution of any kernel size, padded by `padding` on all sides.

    [B, H, W, C] -> [B, (H + 2 padding - size) / stride + 1, ..., features].
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = KERNEL_INIT
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        pad = self.padding, self.padding
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = convolve(x, kernel, Window((pad, pad), self.stride))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y += bias.astype(self.dtype)
        return y


class Deconv(nn.Module):
    """Transposed convolution of stride 2 with bias, PyTorch's `ConvTranspose2d`.

    Size 4 and padding 1: [B, H, W, C] -> [B, 2H, 2W, features]. Size 3 and padding 0:
    [B, H, W, C] -> [B, 2H + 1, 2W + 1, features].

    kernel [size, size, C, features]: input k adds its product with kernel[i] to output
    2k + i - padding, in each direction. Each output pixel depends on two inputs per
    direction, so the outputs of all four phases are computed by one 2x2 convolution.
    The direct form, a convolution of the zero-dilated input, costs four times as many
    multiplications.
    """

    features: int
    size: int = 4
    padding: int = 1
    kernel_init: nn.initializers.Initializer = KERNEL_INIT
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        kernel = self.param(
            "kernel", self.kernel_init, (self.size, self.size, inputs, self.features)
        )
        missing = 4 - self.size
        kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
        # Row 2q + r of the kernel meets the input q rows up, for outputs of phase r.
        taps = kernel.reshape(2, 2, 2, 2, inputs, self.features)[::-1, :, ::-1]
        pairs = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, inputs, -1)
        x, pairs = x.astype(self.dtype), pairs.astype(self.dtype)
        y = convolve(x, pairs, Window(((1, 1), (1, 1))))
        batch, height, width, _ = y.shape
        y = y.reshape(batch, height, width, 2, 2, self.features)
        y = y.transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        ends = [2 * n - self.padding - missing for n in (height, width)]
        y = y[:, self.padding : ends[0], self.padding : ends[1]]
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return y + bias.astype(self.dtype)


def norm_relu(x: Array, name: str, *, train: bool, axis_name: str | None) -> Array:
    """Applies `batch_norm`, then ReLU."""
    return nn.relu(batch_norm(x, name, train=train, axis_name=axis_name))


def batch_norm(x: Array, name: str, *, train: bool, axis_name: str | None) -> Array:
    """Applies batch norm with PyTorch's constants; call it inside a compact method.

    Args:
        x: [B, ..., C]; the result has the same dtype.
        name: name of the submodule.
        train: use batch statistics and update the running ones.
        axis_name: device axis over which batch statistics are averaged in training.
    """
    return BatchNorm(
        use_running_average=not train,
        dtype=x.dtype,
        axis_name=axis_name if train else None,
        name=name,
    )(x)
