"""LinkNet-34 and RAUNet: ResNet-34 with a narrow decoder and additive skips.

LinkNet: Chaurasia and Culurciello, VCIP 2017, as in the public code of Shvets et al.
(arXiv 1803.01207). RAUNet: Ni et al., "RAUNet: Residual Attention U-Net for Semantic
Segmentation of Cataract Surgical Instruments", ICONIP 2019. It is the closest public
relative of PAANet, whose code was never released.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.models.compared import ComparedNetwork
from dmnet_jax.nn.convolution import Conv, Deconv, norm_relu
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.resnet import RESNET34, ResNet


class LinkNet(ComparedNetwork):
    """LinkNet-34 or RAUNet; returns logits at full resolution.

    Attributes:
        blocks: number of residual blocks in each of the encoder's four stages.
        width: channels of the encoder's first stage; the published width is 64.
        attention: whether to use RAUNet's augmented attention instead of additive
            skips.
    """

    blocks: tuple[int, ...] = RESNET34
    width: int = 64
    attention: bool = False

    @nn.compact
    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        stages = ResNet(
            self.blocks,
            self.width,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="backbone",
        )(normalize(frames, "torch").astype(self.dtype), train=train)
        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        x = stages[3]
        for level in (2, 1, 0):
            skip = stages[level]
            block = LinkBlock(skip.shape[-1], **shared, name=f"decoder{level + 2}")
            x = block(x, train=train)
            if self.attention:
                fuse = AugmentedAttention(**shared, name=f"attention{level + 2}")
                x = fuse(x, skip, train=train)
            else:
                x += skip
        x = LinkBlock(self.width, **shared, name="decoder1")(x, train=train)

        half = self.width // 2
        x = nn.relu(Deconv(half, 3, 0, dtype=self.dtype, name="head_deconv")(x))
        x = nn.relu(Conv(half, 3, dtype=self.dtype, name="head_conv")(x))
        head = Conv(self.num_classes, 2, padding=1, dtype=self.dtype, name="classifier")
        return memory, head(x)


class LinkBlock(nn.Module):
    """[B, H, W, C] -> [B, 2H, 2W, features], with a bottleneck of C/4 channels."""

    features: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        done = partial(norm_relu, train=train, axis_name=self.axis_name)
        narrow = x.shape[-1] // 4
        reduce = Dense1x1(narrow, use_bias=True, dtype=self.dtype, name="reduce")
        x = done(reduce(x), "reduce_norm")
        x = done(Deconv(narrow, dtype=self.dtype, name="deconv")(x), "deconv_norm")
        expand = Dense1x1(self.features, use_bias=True, dtype=self.dtype, name="expand")
        return done(expand(x), "expand_norm")


class AugmentedAttention(nn.Module):
    """RAUNet's fusion of a decoder and an encoder map, both [B, H, W, C].

    The spatial means of both maps give the channel weights of the added encoder map.
    """

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, high: Array, low: Array, *, train: bool) -> Array:
        channels = high.shape[-1]

        def dense(x: Array, name: str) -> Array:
            layer = Dense1x1(channels, use_bias=True, dtype=self.dtype, name=name)
            return layer(x)

        def unit(x: Array, name: str) -> Array:
            norm = f"{name}_norm"
            x = dense(x, name)
            return norm_relu(x, norm, train=train, axis_name=self.axis_name)

        summary = unit(high.mean((1, 2), keepdims=True), "high")
        summary += unit(low.mean((1, 2), keepdims=True), "low")
        weight = jax.nn.softmax(dense(summary, "weight").astype(jnp.float32))
        return high + weight.astype(self.dtype) * unit(low, "skip")
