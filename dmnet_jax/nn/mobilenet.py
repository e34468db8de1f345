"""MobileNetV2 encoder (Sandler et al., CVPR 2018) as used in the paper."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.batch_norm import BatchNorm
from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3, Padding, relu6

Stages = tuple[tuple[int, int, int, int], ...]
"""For each stage: expansion, channels, blocks, stride of the first block."""

STAGES: Stages = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# ImageNet mean and standard deviation in [0, 1], as used to train "torch" weights.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; residual if shapes match.

    With `expansion` 0, the depthwise convolution is applied to the input directly.
    """

    features: int
    expansion: int
    stride: int
    padding: Padding
    norm: Callable[..., Callable[[Array], Array]]
    folded: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shared: dict[str, Any] = {"use_bias": self.folded, "dtype": self.dtype}
        y = x
        if self.expansion:
            hidden = x.shape[-1] * self.expansion
            y = Dense1x1(hidden, name="expand", **shared)(x)
            y = relu6(self.norm(name="expand_norm")(y))
        y = Depthwise3x3(self.stride, padding=self.padding, name="depthwise", **shared)(
            y
        )
        y = relu6(self.norm(name="depthwise_norm")(y))
        y = Dense1x1(self.features, name="project", **shared)(y)
        y = self.norm(name="project_norm")(y)
        if self.stride == 1 and self.features == x.shape[-1]:
            y += x
        return y


class MobileNetV2(nn.Module):
    """MobileNetV2: [B, H, W, 3] -> outputs of the last six stages.

    The outputs have 24 channels at H/4, 32 at H/8, 64 and 96 at H/16, 160 and 320 at
    H/32, in this order.

    Attributes:
        padding: "keras" or "torch", see `pad_3x3`.
        epsilon: epsilon of batch norm.
        first_expansion: whether the first block has a 1x1 expansion, from 32 to 32
            channels, as in the Light-Weight RefineNet encoder. Keras and torchvision
            omit it.
        folded: whether norms are folded into the preceding convolutions, which then
            have a bias; see `models.folding`.
        axis_name: device axis over which batch norm is synchronized in training.
        stages: the seven stages.
        dtype: dtype of features.
    """

    padding: Padding = "keras"
    epsilon: float = 1e-3
    first_expansion: bool = True
    folded: bool = False
    axis_name: str | None = None
    stages: Stages = STAGES
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
        norm = partial(
            BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name if train else None,
        )
        if self.folded:
            norm = _folded_norm
        stem = Conv3x3(
            *(32, 2, self.folded), padding=self.padding, dtype=self.dtype, name="stem"
        )
        x = relu6(norm(name="stem_norm")(stem(x)))
        outputs, index = [], 0
        for expansion, features, repeats, first_stride in self.stages:
            for repeat in range(repeats):
                x = InvertedResidual(
                    features,
                    expansion if index or self.first_expansion else 0,
                    first_stride if repeat == 0 else 1,
                    self.padding,
                    norm,
                    self.folded,
                    dtype=self.dtype,
                    name=f"block{index}",
                )(x)
                index += 1
            outputs.append(x)
        return tuple(outputs[1:])


def _folded_norm(name: str) -> Callable[[Array], Array]:
    return lambda x: x


def normalize(frames: Array, encoder: Padding) -> Array:
    """Normalizes uint8 RGB [..., 3] to float32 as the encoder's weights expect."""
    x = frames.astype(jnp.float32)
    if encoder == "keras":
        return x / 127.5 - 1.0
    return (x / 255.0 - jnp.array(MEAN)) / jnp.array(DEVIATION)


def unit_range(x: Array, encoder: Padding) -> Array:
    """Returns RGB in 0..1, float32 [..., 3], from what `normalize` returns."""
    x = x.astype(jnp.float32)
    if encoder == "keras":
        return (x + 1.0) / 2.0
    return x * jnp.array(DEVIATION) + jnp.array(MEAN)
