"""LWANet: a lightweight attention network on MobileNetV2.

Ni et al., "Attention-Guided Lightweight Network for Real-Time Segmentation of Robotic
Surgical Instruments", ICRA 2020 (arXiv 1910.11109). The layers follow its public code,
including batch norm and ReLU on the logits and batch norm over a single pixel per frame
in the attention. A training batch must therefore contain several clips. The paper's row
(2.25 M, 2.77 G) belongs to a variant that is 8 to 14 % larger and not public.
"""

from functools import partial
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.config import Config
from dmnet_jax.models.compared import ComparedNetwork
from dmnet_jax.nn.convolution import Deconv, batch_norm, norm_relu
from dmnet_jax.nn.layers import Dense1x1, Depthwise3x3, Padding
from dmnet_jax.nn.mobilenet import STAGES, MobileNetV2, Stages, normalize


class LWANet(ComparedNetwork):
    """LWANet; returns non-negative logits at 1/4 resolution.

    Attributes:
        encoder: the framework whose MobileNetV2 is reproduced, see `DMNet.encoder`. The
            release uses PyTorch's with inputs in [-1, 1]; here the inputs are
            normalized as the weights expect.
        stages: stages of the encoder, see `MobileNetV2`.
    """

    mobilenet: ClassVar[bool] = True
    encoder: Padding = "keras"
    stages: Stages = STAGES

    @classmethod
    def from_config(cls, config: Config, **fields: Any) -> Self:
        return cls(encoder=config.model.encoder, **fields)

    @nn.compact
    def update(
        self, memory: Any, frames: Array, *, train: bool = False
    ) -> tuple[Any, Array]:
        backbone = MobileNetV2(
            padding=self.encoder,
            epsilon=1e-3 if self.encoder == "keras" else 1e-5,
            first_expansion=False,
            stages=self.stages,
            axis_name=self.axis_name,
            dtype=self.dtype,
            name="backbone",
        )
        x = normalize(frames, self.encoder).astype(self.dtype)
        quarter, eighth, _, sixteenth, _, x = backbone(x, train=train)

        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        for level, skip in ((3, sixteenth), (2, eighth), (1, quarter)):
            up = SeparableDeconv(skip.shape[-1], **shared, name=f"up{level}")
            fuse = AttentionFusion(**shared, name=f"attention{level}")
            x = fuse(up(x, train=train), skip, train=train)
        for name, width in (("head", x.shape[-1]), ("classifier", self.num_classes)):
            x = Separable(width, **shared, name=name)(x, train=train)
        return memory, x


class Separable(nn.Module):
    """Depthwise 3x3 and 1x1 convolution, each with batch norm and ReLU.

    [B, H, W, C] -> [B, H, W, features].
    """

    features: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        done = partial(norm_relu, train=train, axis_name=self.axis_name)
        x = done(Depthwise3x3(dtype=self.dtype, name="depthwise")(x), "depthwise_norm")
        dense = Dense1x1(self.features, dtype=self.dtype, name="dense")
        return done(dense(x), "dense_norm")


class SeparableDeconv(nn.Module):
    """`Separable`, then a full transposed convolution of stride 2.

    [B, H, W, C] -> [B, 2H, 2W, features].
    """

    features: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        x = Separable(self.features, self.axis_name, self.dtype, name="separable")(
            x, train=train
        )
        x = Deconv(self.features, dtype=self.dtype, name="deconv")(x)
        return norm_relu(x, "deconv_norm", train=train, axis_name=self.axis_name)


class AttentionFusion(nn.Module):
    """Sum of two maps [B, H, W, C], each with channel gates from its spatial mean."""

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, high: Array, low: Array, *, train: bool) -> Array:
        high = high * self._gate(high, "high", train)
        return high + low * self._gate(low, "low", train)

    def _gate(self, x: Array, name: str, train: bool) -> Array:
        y = x.mean((1, 2), keepdims=True)
        for layer, activation in (("squeeze", nn.relu), ("excite", nn.sigmoid)):
            name_ = f"{name}_{layer}"
            dense = Dense1x1(x.shape[-1], use_bias=True, dtype=self.dtype, name=name_)
            y = batch_norm(
                dense(y), f"{name_}_norm", train=train, axis_name=self.axis_name
            )
            y = activation(y)
        return y
