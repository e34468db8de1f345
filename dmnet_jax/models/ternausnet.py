"""TernausNet: a U-Net on VGG, the winner of EndoVis 2017.

Shvets et al., "Automatic Instrument Segmentation in Robot-Assisted Surgery using Deep
Learning", ICMLA 2018 (arXiv 1803.01207). The layers follow its public code.

The paper's row (36.92 M, 275.45 G) belongs to an unreleased variant: the public
TernausNet-16 with two more 512-channel 3x3 convolutions, one at 1/32 and one at 1/64,
matches both numbers if transposed convolutions are counted at their output size. This
module implements the public one.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.models.compared import ComparedNetwork
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.pooling import max_pool_2x2
from dmnet_jax.nn.vgg import VGG, DeconvBlock, conv_relu

# (hidden, output) channels of the decoder blocks, innermost first, relative to `width`.
DECODERS = {
    11: ((8, 4), (8, 4), (8, 2), (4, 1), (2, 0.5)),
    16: ((8, 4), (8, 4), (8, 4), (4, 1), (2, 0.5)),
}


class TernausNet(ComparedNetwork):
    """TernausNet; returns logits at full resolution.

    Attributes:
        layers: 11 for the VGG-11 encoder, 16 for VGG-16.
        width: channels of the encoder's first stage; the published width is 64.
    """

    layers: Literal[11, 16] = 16
    width: int = 64

    @nn.compact
    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        vgg = VGG(self.layers, self.width, dtype=self.dtype, name="backbone")
        stages = vgg(normalize(frames, "torch").astype(self.dtype))
        x = max_pool_2x2(stages[-1])
        blocks = DECODERS[self.layers]
        for level, (hidden, features) in zip(range(5, 0, -1), blocks, strict=True):
            x = DeconvBlock(
                int(hidden * self.width),
                int(features * self.width),
                dtype=self.dtype,
                name=f"decoder{level}",
            )(x)
            x = jnp.concatenate([x, stages[level - 1]], axis=-1)
        x = conv_relu(x, self.width // 2, "decoder0", self.dtype)
        head = Dense1x1(
            self.num_classes, use_bias=True, dtype=self.dtype, name="classifier"
        )
        return memory, head(x)
