"""MF-TAPNet: TernausNet-11 whose attention starts from the last prediction, moved.

Jin et al., "Incorporating Temporal Prior from Motion Flow for Instrument Segmentation
in Minimally Invasive Surgery Video", MICCAI 2019 (arXiv 1907.07899). The layers are
those of TAPNet11 in its public code, which its published table is of.

What differs from that code, and why:
- the flow is OpenCV's DIS in place of a flow network trained for it. `update` asks for
  it from the frame before, which the memory holds, so streams, videos and training
  clips need no other input. It is computed on the host;
- where several pixels move to one place the likeliest wins (there: the last written);
- in training the prior is the present network's prediction of the frame before, made
  from no prior; there it is the prediction of one epoch ago.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import Array, lax

from data_pipelines.loading.flow import dense_flow
from dmnet_jax.models.compared import ComparedNetwork, padded_size
from dmnet_jax.models.ternausnet import DECODERS
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.mobilenet import normalize
from dmnet_jax.nn.pooling import max_pool_2x2
from dmnet_jax.nn.resizing import enlarge
from dmnet_jax.nn.vgg import VGG, DeconvBlock, conv_relu

DILATION = 10


class LastFrame(struct.PyTreeNode):
    """What MF-TAPNet remembers.

    Attributes:
        frame: uint8 [B, H', W', 3], the last one; black before the first.
        foreground: float32 [B, H', W'], its predicted probability; 0 before it.
    """

    frame: Array
    foreground: Array


class TAPNet(ComparedNetwork):
    """Logits at full size.

    Attributes:
        width: channels of the encoder's first stage; 64 is the published one.
    """

    width: int = 64

    @nn.nowrap
    def init_memory(self, batch: int, size: tuple[int, int], key: Array) -> LastFrame:
        """An empty memory for `batch` videos of frames `size` = (H, W)."""
        shape = (batch, *padded_size(size))
        return LastFrame(jnp.zeros((*shape, 3), jnp.uint8), jnp.zeros(shape))

    @nn.compact
    def update(
        self, memory: LastFrame, frames: Array, *, train: bool = False
    ) -> tuple[LastFrame, Array]:
        prior = moved(memory.foreground, flow_between(memory.frame, frames))
        batch, height, width = prior.shape
        attention = enlarge(prior[..., None], (height // 16, width // 16))
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
            attention = enlarge(attention, (x.shape[1], x.shape[2]))
        x = conv_relu(x, self.width // 2, "decoder0", self.dtype)
        logits = Dense1x1(
            self.num_classes, use_bias=True, dtype=self.dtype, name="classifier"
        )(x)
        background = jax.nn.softmax(logits.astype(jnp.float32))[..., 0]
        after = LastFrame(frames, lax.stop_gradient(1 - background))
        return after, logits


class PriorAttention(nn.Module):
    """A map [B, H, W, C] raised where its attention [B, H, W, 1] is, and the next one.

    The next lies in [0.5, 1), as its logit passes a ReLU.
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
    """A map [B, H, W] along its flow, and widened to 10x10 pixels.

    Every pixel goes to the nearest place in the frame; where none arrives it is 0.
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
