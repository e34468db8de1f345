"""MF-TAPNet: TernausNet-11 with attention from the last prediction warped by flow.

Jin et al., "Incorporating Temporal Prior from Motion Flow for Instrument Segmentation
in Minimally Invasive Surgery Video", MICCAI 2019 (arXiv 1907.07899). The layers are
those of TAPNet11 in the public code, which produced the published table.

Differences from that code:
- the flow is OpenCV's DIS instead of a trained flow network. `update` computes it on
  the host from the previous frame, which the memory holds, so streams, videos and
  training clips need no other input;
- where several pixels move to one position, the highest probability wins (in the
  public code, the last one written);
- in training, the prior is the current network's prediction for the previous frame,
  computed without a prior (in the public code, the prediction of the previous epoch).
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array, lax

from data_pipelines.loading.flow import dense_flow, require_opencv
from dmnet_jax.config import Config
from dmnet_jax.models.compared import ComparedNetwork, round_up_size
from dmnet_jax.models.ternausnet import DECODERS
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.pooling import max_pool_2x2
from dmnet_jax.nn.resizing import resize
from dmnet_jax.nn.vgg import VGG, DeconvBlock, conv_relu

DILATION = 10


class LastFrame(struct.PyTreeNode):
    """The memory of MF-TAPNet.

    Attributes:
        frame: uint8 [B, H', W', 3], the last frame; black before the first one.
        foreground: float32 [B, H', W'], its predicted foreground probability; 0 before
            the first frame.
    """

    frame: Array
    foreground: Array


class TAPNet(ComparedNetwork):
    """MF-TAPNet; returns logits at full resolution.

    Attributes:
        width: channels of the encoder's first stage; the published width is 64.
    """

    width: int = 64

    @classmethod
    def from_config(cls, config: Config, **fields: Any) -> Self:
        require_opencv()
        return cls(**fields)

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> LastFrame:
        """Returns an empty memory for `batch` videos with frames of `size` = (H, W)."""
        shape = (batch, *round_up_size(size))
        return LastFrame(jnp.zeros((*shape, 3), jnp.uint8), jnp.zeros(shape))

    @nn.compact
    def update(
        self, memory: LastFrame, frames: Array, *, train: bool = False
    ) -> tuple[LastFrame, Array]:
        prior = moved(memory.foreground, flow_between(memory.frame, frames))
        batch, height, width = prior.shape
        attention = resize(prior[..., None], (height // 16, width // 16))
        attention = attention.astype(self.dtype)

        vgg = VGG(11, self.width, dtype=self.dtype, name="backbone")
        stages = vgg(normalize(frames, "torch").astype(self.dtype))
        hidden, features = (int(n * self.width) for n in DECODERS[11][0])
        x = DeconvBlock(hidden, features, dtype=self.dtype, name="decoder5")(
            max_pool_2x2(stages[-1])
        )
        for level in range(4, -1, -1):
            x = jnp.concatenate([x, stages[level]], axis=-1)
            x, attention = PriorAttention(self.dtype, name=f"attention{level}")(
                x, attention
            )
            if level == 0:
                break
            hidden, features = (int(n * self.width) for n in DECODERS[11][5 - level])
            x = DeconvBlock(hidden, features, dtype=self.dtype, name=f"decoder{level}")(
                x
            )
            attention = resize(attention, (x.shape[1], x.shape[2]))
        x = conv_relu(x, self.width // 2, "decoder0", self.dtype)
        logits = Dense1x1(
            self.num_classes, use_bias=True, dtype=self.dtype, name="classifier"
        )(x)
        background = jax.nn.softmax(logits.astype(jnp.float32))[..., 0]
        after = LastFrame(frames, lax.stop_gradient(1 - background))
        return after, logits


class PriorAttention(nn.Module):
    """Scales a map [B, H, W, C] by 1 + attention [B, H, W, 1].

    Also returns the next attention map, which lies in [0.5, 1) because its logit passes
    a ReLU.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, attention: Array) -> tuple[Array, Array]:
        x = conv_relu(x, x.shape[-1], "conv", self.dtype) * (1 + attention)
        score = Dense1x1(1, use_bias=True, dtype=self.dtype, name="score")(x)
        return x, nn.sigmoid(nn.relu(score))


def flow_between(before: Array, after: Array) -> Array:
    """Dense optical flow of uint8 frames [B, H, W, 3]: float32 [B, H, W, 2] (x, y).

    Computed on the host while the program runs.
    """
    result = jax.ShapeDtypeStruct((*before.shape[:3], 2), jnp.float32)

    def flow(before: Any, after: Any) -> np.ndarray:
        pairs = zip(np.asarray(before), np.asarray(after), strict=True)
        return np.stack([dense_flow(*pair) for pair in pairs])

    return jax.pure_callback(flow, result, before, after)


def moved(foreground: Array, flow: Array) -> Array:
    """Warps a map [B, H, W] forward along its flow and dilates it by 10x10 pixels.

    Every pixel moves to the nearest position inside the frame. Positions that no pixel
    moves to are 0.
    """
    batch, height, width = foreground.shape
    row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    target = jnp.round(jnp.stack([column, row], -1) + flow).astype(jnp.int32)
    x = jnp.clip(target[..., 0], 0, width - 1)
    y = jnp.clip(target[..., 1], 0, height - 1)
    first = jnp.arange(batch)[:, None, None]
    splat = jnp.zeros_like(foreground).at[first, y, x].max(foreground)
    pads = (DILATION // 2, DILATION - 1 - DILATION // 2)
    for axis in (1, 2):
        window, padding = [1, 1, 1], [(0, 0)] * 3
        window[axis], padding[axis] = DILATION, pads
        splat = lax.reduce_window(splat, 0.0, lax.max, window, (1, 1, 1), padding)
    return splat
