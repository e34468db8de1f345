"""Light-Weight RefineNet decoder (Nekrasov et al., BMVC 2018)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.layers import Conv3x3, Dense1x1, relu6
from dmnet_jax.nn.pooling import max_pool_5x5
from dmnet_jax.nn.resizing import upsample_2x


class ChainedResidualPooling(nn.Module):
    """A chain of `stages` 5x5 max-pools, each followed by a 1x1 convolution.

    Returns the sum of the input [B, H, W, C] and all stages, and the last stage, both
    of the input's shape.
    """

    stages: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        top = x
        for stage in range(self.stages):
            top = max_pool_5x5(top)
            top = Dense1x1(x.shape[-1], dtype=self.dtype, name=f"conv{stage}")(top)
            x += top
        return x, top


class RefineNetDecoder(nn.Module):
    """Fuses a map of `width` channels at 1/32 with the encoder's finer maps.

    `__call__(top, quarter, eighth, sixteenth_64, sixteenth_96)` takes top
    [B, h, w, width], quarter [B, 8h, 8w, 24], eighth [B, 4h, 4w, 32] and two maps
    [B, 2h, 2w, 64 and 96]. It returns logits [B, 8h, 8w, num_classes] and the fused map
    at 1/8, [B, 4h, 4w, width].

    Attributes:
        num_classes: number of classes.
        width: channels of all maps in the decoder.
        pooling_stages: stages of each chained residual pooling.
        folded: whether the last pooling convolution is folded into a second
            classifier; see `models.folding`.
    """

    num_classes: int
    width: int = 256
    pooling_stages: int = 4
    folded: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        top: Array,
        quarter: Array,
        eighth: Array,
        sixteenth_64: Array,
        sixteenth_96: Array,
    ) -> tuple[Array, Array]:
        def dense(name: str) -> Dense1x1:
            return Dense1x1(self.width, dtype=self.dtype, name=name)

        def pool(name: str, stages: int = self.pooling_stages) -> Any:
            return ChainedResidualPooling(stages, self.dtype, name=name)

        def classifier(name: str, use_bias: bool) -> Conv3x3:
            return Conv3x3(
                self.num_classes, use_bias=use_bias, dtype=self.dtype, name=name
            )

        x = upsample_2x(dense("adapt4")(pool("crp4")(top)[0]))
        x = dense("lateral5")(sixteenth_64) + dense("lateral6")(sixteenth_96) + x
        x = relu6(x)
        x = upsample_2x(dense("adapt3")(pool("crp3")(x)[0]))
        fine = relu6(dense("lateral4")(eighth) + x)
        x = upsample_2x(dense("adapt2")(pool("crp2")(fine)[0]))
        x = relu6(dense("lateral3")(quarter) + x)
        x, last = pool("crp1", self.pooling_stages - self.folded)(x)
        logits = classifier("classifier", True)(x)
        if self.folded:
            logits += classifier("pooled_classifier", False)(max_pool_5x5(last))
        return logits, fine
