"""The paths of TDNet, which process frames in turn; see `models/tdnet.py`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from dmnet_jax.nn.attention import Attention
from dmnet_jax.nn.convolution import batch_norm
from dmnet_jax.nn.layers import Conv3x3, Dense1x1
from dmnet_jax.nn.pyramid import PyramidPooling
from dmnet_jax.nn.resnet import ResNet

KEY = 64
SPARSE = 3  # stride, in both directions, of the positions kept of a remembered frame


class TDNetMemory(struct.PyTreeNode):
    """TDNet's memory of the P - 1 frames before, oldest first.

    Attributes:
        query: [B, P-1, n, 64], at n positions of a frame: every third one in each
            direction at 1/8 resolution.
        key: [B, P-1, n, 64].
        value: [B, P-1, n, V].
        count: int32 [B], number of frames seen. All videos of a batch start together,
            so the first entry determines the next path.
    """

    query: Array
    key: Array
    value: Array
    count: Array


class Encoded(NamedTuple):
    """An encoded frame, [B, h, w, ...] at 1/8 resolution.

    Attributes:
        query: 64 channels.
        key: 64 channels, at every third position in each direction.
        value: V channels.
        third: output of the third stage.
    """

    query: Array
    key: Array
    value: Array
    third: Array


class Path(nn.Module):
    """One path of TDNet; it computes half of the features of a PSPNet-18.

    Attributes:
        num_classes: number of classes.
        steps: number of frames before the current one, P - 1.
        upper: whether to compute the upper half of the channels.
        blocks: number of residual blocks in each encoder stage.
        width: channels of the encoder's first stage.
        value_channels: channels of the values.
        norm_size: see `TDNet`.
        auxiliary: whether there is a head on the third stage.
        axis_name: device axis over which batch norm is synchronized in training.
        dtype: dtype of features.
    """

    num_classes: int
    steps: int
    upper: bool
    blocks: tuple[int, ...]
    width: int
    value_channels: int
    norm_size: tuple[int, int]
    auxiliary: bool
    axis_name: str | None
    dtype: Any

    def setup(self) -> None:
        def dense(features: int, bias: bool = True) -> Dense1x1:
            return Dense1x1(features, use_bias=bias, dtype=self.dtype)

        shared = {"axis_name": self.axis_name, "dtype": self.dtype}
        self.backbone = ResNet(self.blocks, self.width, dilated=True, **shared)
        self.pyramid = PyramidPooling(**shared)
        self.query = Projection(**shared)
        self.key = Projection(**shared)
        self.value = dense(self.value_channels)
        self.attend = [Attention(dtype=self.dtype) for _ in range(self.steps)]
        self.project = [dense(self.value_channels) for _ in range(self.steps)]
        self.drop = nn.Dropout(0.1)
        self.norm = PositionNorm(self.norm_size, dtype=self.dtype)
        hidden = self.width * 2 if self.steps > 1 else self.width
        self.head = Head(self.num_classes, hidden, **shared)
        if self.auxiliary:
            self.third_head = Head(self.num_classes, self.width, **shared)

    def encode(self, x: Array, *, train: bool) -> Encoded:
        """Encodes normalized frames [B, H, W, 3]."""
        *_, third, x = self.backbone(x, train=train)
        parts = [x, *self.pyramid(x, train=train)]
        halves = [part.shape[-1] // 2 for part in parts]
        x = jnp.concatenate(
            [
                part[..., half:] if self.upper else part[..., :half]
                for part, half in zip(parts, halves, strict=True)
            ],
            axis=-1,
        )
        return Encoded(
            self.query(x, train=train),
            self.key(x[:, ::SPARSE, ::SPARSE], train=train),
            self.value(x),
            third,
        )

    def decode(
        self, memory: TDNetMemory, own: Encoded, full: Array, *, train: bool
    ) -> Array:
        """Returns logits [B, h, w, C] of an encoded frame.

        Args:
            memory: memory of the frames before.
            own: the encoded current frame.
            full: bool [B], whether the memory holds P - 1 frames; if False, it is not
                read.
            train: enables dropout and uses batch statistics in batch norm.
        """
        batch, height, width, channels = own.value.shape
        query = own.query.reshape(batch, height * width, -1)
        read = jnp.zeros((), self.dtype)
        for i in range(self.steps):
            last = i == self.steps - 1
            read = self.attend[i](
                query if last else memory.query[:, i + 1],
                memory.key[:, i],
                memory.value[:, i] + read,
                train=train,
            )
            read = self.project[i](read[:, :, None])[:, :, 0]
            read = self.drop(read, deterministic=not train)
        read = read.reshape(batch, height, width, channels)
        x = own.value + jnp.where(full[:, None, None, None], read, 0)
        return self.head(self.norm(x), train=train)

    def head_on_third(self, third: Array, *, train: bool) -> Array:
        """Returns logits [B, h, w, C] from the output of the third stage."""
        return self.third_head(third, train=train)


class Projection(nn.Module):
    """[..., C] -> [..., 64]: 1x1, batch norm, leaky ReLU, 1x1."""

    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        x = Dense1x1(KEY, use_bias=True, dtype=self.dtype, name="first")(x)
        x = batch_norm(x, "norm", train=train, axis_name=self.axis_name)
        x = nn.leaky_relu(x)
        return Dense1x1(KEY, use_bias=True, dtype=self.dtype, name="second")(x)


class PositionNorm(nn.Module):
    """Normalizes each channel over positions: [B, h, w, C] -> same shape.

    Scale and bias are per position, [*size], and interpolated for maps of other sizes.
    """

    size: tuple[int, int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def fitted(name: str, init: nn.initializers.Initializer) -> Array:
            y = self.param(name, init, self.size)
            if self.size != x.shape[1:3]:
                y = jax.image.resize(y, x.shape[1:3], "linear", antialias=False)
            return y[:, :, None]

        y = x.astype(jnp.float32)
        mean = y.mean((1, 2), keepdims=True)
        variance = jnp.square(y - mean).mean((1, 2), keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(variance + 1e-5)
        y = y * fitted("scale", nn.initializers.ones)
        return (y + fitted("bias", nn.initializers.zeros)).astype(self.dtype)


class Head(nn.Module):
    """Segmentation head: a 3x3 and a 1x1 convolution, giving logits [B, h, w, C]."""

    num_classes: int
    hidden: int
    axis_name: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        x = Conv3x3(self.hidden, dtype=self.dtype, name="conv")(x)
        x = batch_norm(x, "norm", train=train, axis_name=self.axis_name)
        # Whole channels are dropped.
        x = nn.Dropout(0.1, broadcast_dims=(1, 2), deterministic=not train)(nn.relu(x))
        classifier = Dense1x1(
            self.num_classes, use_bias=True, dtype=self.dtype, name="classifier"
        )
        return classifier(x)


def sparse(encoded: Encoded) -> tuple[Array, Array, Array]:
    """Query, key and value at every third position per side, [..., n, channels]."""
    query, value = (
        x[..., ::SPARSE, ::SPARSE, :] for x in (encoded.query, encoded.value)
    )
    query, key, value = (
        x.reshape(*x.shape[:-3], -1, x.shape[-1]) for x in (query, encoded.key, value)
    )
    return query, key, value
