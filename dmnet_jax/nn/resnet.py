"""ResNet-18 and ResNet-34 encoders (He et al., CVPR 2016), as in torchvision."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.convolution import Conv, batch_norm, norm_relu
from dmnet_jax.nn.layers import Conv3x3, Dense1x1
from dmnet_jax.nn.pooling import max_pool_3x3

# Number of blocks in each stage.
RESNET18 = (2, 2, 2, 2)
RESNET34 = (3, 4, 6, 3)


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions; projects the input if shapes differ.

    Attributes:
        dilations: dilations of the first and the second convolution.
    """

    features: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        def norm(y: Array, name: str) -> Array:
            return batch_norm(y, name, train=train, axis_name=self.axis_name)

        first = Conv3x3(
            self.features,
            self.stride,
            dilation=self.dilations[0],
            dtype=self.dtype,
            name="conv1",
        )
        second = Conv3x3(
            self.features, dilation=self.dilations[1], dtype=self.dtype, name="conv2"
        )
        y = nn.relu(norm(first(x), "norm1"))
        y = norm(second(y), "norm2")
        if self.stride > 1 or x.shape[-1] != self.features:
            x = x[:, :: self.stride, :: self.stride]
            x = Dense1x1(self.features, dtype=self.dtype, name="project")(x)
            x = norm(x, "project_norm")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet encoder: [B, H, W, 3] -> the outputs of its four stages.

    They have 64, 128, 256 and 512 channels (for width 64) at H/4, H/8, H/16 and H/32.
    If dilated, the last two are at H/8 as well: the third stage has dilation 1 in its
    first convolution and 2 after that. In the fourth stage, the first convolution of
    each block has dilation 4 in the first block and 8 in the others, and the second
    convolution has dilation 4 (multi-grid, as in TDNet's release).
    """

    blocks: tuple[int, ...] = RESNET34
    width: int = 64
    dilated: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
        stem = Conv(self.width, 7, 2, 3, use_bias=False, dtype=self.dtype, name="stem")
        x = norm_relu(stem(x), "stem_norm", train=train, axis_name=self.axis_name)
        x = max_pool_3x3(x)
        outputs = []
        for stage, repeats in enumerate(self.blocks):
            for block in range(repeats):
                halves = block == 0 and stage > 0
                dilations = (1, 1)
                if self.dilated and stage >= 2:
                    halves = False
                    dilations = ((1 if block == 0 else 2), 2)
                    if stage == 3:
                        dilations = ((4 if block == 0 else 8), 4)
                x = BasicBlock(
                    self.width << stage,
                    2 if halves else 1,
                    dilations,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train)
            outputs.append(x)
        return tuple(outputs)
