"""A network in the style of PAANet, whose exact layers were never published.

Ni et al., "Pyramid Attention Aggregation Network for Semantic Segmentation of Surgical
Instruments", AAAI 2020. The parts described in the paper are kept: a ResNet-34 encoder,
double attention (over positions and channels) at every level, maps of all scales mixed
with input-dependent weights, and transposed convolutions up to full resolution.
Everything else is our choice, made to match the parameter count in Table 1 of the DMNet
paper (21.86 M). This is not PAANet, and its scores are not PAANet's.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.models.compared import ComparedNetwork
from dmnet_jax.nn.convolution import Deconv, norm_relu
from dmnet_jax.nn.layers import Conv3x3, Dense1x1
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.resizing import resize
from dmnet_jax.nn.resnet import RESNET34, ResNet


class PAANetStyle(ComparedNetwork):
    """PAANet-style network; returns logits at full resolution.

    Attributes:
        blocks: number of residual blocks in each of the encoder's four stages.
        width: channels of the encoder's first stage and of the decoder.
    """

    blocks: tuple[int, ...] = RESNET34
    width: int = 64

    @nn.compact
    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        def unit(x: Array, layer: nn.Module) -> Array:
            x = layer(x)
            norm = f"{layer.name}_norm"
            return norm_relu(x, norm, train=train, axis_name=self.axis_name)

        stages = ResNet(
            self.blocks,
            self.width,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="backbone",
        )(normalize(frames, "torch").astype(self.dtype), train=train)

        # From the deepest level up: double attention, sum, convolution.
        levels, deeper = [], None
        for level in (3, 2, 1, 0):
            lateral = Dense1x1(self.width, dtype=self.dtype, name=f"lateral{level}")
            x = unit(stages[level], lateral)
            x = DoubleAttention(dtype=self.dtype, name=f"attention{level}")(x)
            if deeper is not None:
                up = Deconv(self.width, dtype=self.dtype, name=f"deconv{level}")
                x += unit(deeper, up)
            conv = Conv3x3(self.width, dtype=self.dtype, name=f"conv{level}")
            deeper = unit(x, conv)
            levels.append(deeper)

        # The pyramid: all levels at 1/4 resolution, mixed with per-position weights.
        size = levels[-1].shape[1:3]
        pyramid = jnp.stack([resize(x, (size[0], size[1])) for x in levels])
        score = Dense1x1(1, use_bias=True, dtype=self.dtype, name="level_score")
        weights = jax.nn.softmax(score(pyramid).astype(jnp.float32), axis=0)
        x = (weights.astype(self.dtype) * pyramid).sum(0)

        for level, width in ((1, self.width), (0, self.width // 2)):
            up = Deconv(width, dtype=self.dtype, name=f"head_deconv{level}")
            conv = Conv3x3(width, dtype=self.dtype, name=f"head_conv{level}")
            x = unit(unit(x, up), conv)
        head = Dense1x1(
            self.num_classes, use_bias=True, dtype=self.dtype, name="classifier"
        )
        return memory, head(x)


class DoubleAttention(nn.Module):
    """Adds channel-gated and position-gated copies of a map [B, H, W, C] to it.

    The position gate uses the spatial mean of the map in addition to its features.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def dense(features: int, name: str) -> Dense1x1:
            return Dense1x1(features, use_bias=True, dtype=self.dtype, name=name)

        context = x.mean((1, 2), keepdims=True)
        channel = nn.sigmoid(dense(x.shape[-1], "channel")(context))
        both = dense(1, "position")(x) + dense(1, "position_context")(context)
        return x + x * channel + x * nn.sigmoid(both)
