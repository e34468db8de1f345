"""VGG encoders without batch norm (Simonyan and Zisserman, ICLR 2015)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.convolution import HE, Deconv
from dmnet_jax.nn.layers import Conv3x3
from dmnet_jax.nn.pooling import max_pool_2x2

# Number of convolutions in each stage, by the total number of layers of the network.
STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


class VGG(nn.Module):
    """VGG encoder: [B, H, W, 3] -> the outputs of its five stages before pooling.

    They have 64, 128, 256, 512 and 512 channels (for width 64) at H, H/2, H/4, H/8 and
    H/16.
    """

    layers: int = 16
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, ...]:
        outputs = []
        for stage, repeats in enumerate(STAGES[self.layers]):
            if stage:
                x = max_pool_2x2(x)
            for repeat in range(repeats):
                features = self.width * min(2**stage, 8)
                x = conv_relu(x, features, f"conv{stage}_{repeat}", self.dtype)
            outputs.append(x)
        return tuple(outputs)


class DeconvBlock(nn.Module):
    """A 3x3 and a transposed 4x4 convolution, each with ReLU.

    [B, H, W, C] -> [B, 2H, 2W, features].
    """

    hidden: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = conv_relu(x, self.hidden, "conv", self.dtype)
        up = Deconv(self.features, kernel_init=HE, dtype=self.dtype, name="deconv")
        return nn.relu(up(x))


def conv_relu(x: Array, features: int, name: str, dtype: Any) -> Array:
    """Applies a 3x3 convolution with bias and ReLU; call it inside a compact method."""
    conv = Conv3x3(features, use_bias=True, kernel_init=HE, dtype=dtype, name=name)
    return nn.relu(conv(x))
