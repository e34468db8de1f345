"""A network's own predictions, carried from frame to frame and used as a prior."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend
from dmnet_jax.nn.layers import Conv3x3, Dense1x1
from dmnet_jax.nn.resizing import upsample_2x

# With zero weights a frame is trusted by 0.95: what is carried on is nearly its own.
TRUST_BIAS = 3.0
# The gain's parameter is this much smaller than the gain, so that an optimizer whose
# steps are as large as its learning rate (Adam) reaches 1 in a hundred steps.
GAIN_SCALE = 30.0
# Probabilities below this are as good as zero.
LEAST = 1e-4

ZEROS = nn.initializers.zeros


class PredictionState(nn.Module):
    """Reads class probabilities of the frames before, and corrects a frame with them.

    Both ways in start at zero: with fresh parameters the network is what it is without
    a state. The first frame of a video is taken as it is.

    Attributes:
        width: channels of the decoder.
        channels: of the prior before it is widened.
    """

    width: int = 256
    channels: int = 32
    dtype: Any = jnp.float32

    def setup(self) -> None:
        def conv() -> Conv3x3:
            return Conv3x3(self.channels, use_bias=True, dtype=self.dtype)

        def zero(features: int) -> Dense1x1:
            return Dense1x1(features, kernel_init=ZEROS, dtype=self.dtype)

        self.prior8, self.widen8 = conv(), zero(self.width)
        self.prior16, self.widen16 = conv(), zero(self.width)
        self.trust8, self.trust32 = zero(1), zero(1)
        self.gain = self.param("gain", ZEROS, ())

    def priors(self, state: GatedState[Array]) -> tuple[Array, Array]:
        """What the decoder adds at 1/16 and at 1/8: maps of `width` channels."""
        x = _halved(state.value.astype(self.dtype))
        at16 = self.widen16(nn.relu(self.prior16(_halved(x))))
        at8 = self.widen8(nn.relu(self.prior8(x)))
        known = _known(state)
        return jnp.where(known, at16, 0), jnp.where(known, at8, 0)

    def __call__(
        self,
        state: GatedState[Array],
        logits: Array,
        fine: Array,
        top: Array,
        active: Array,
    ) -> tuple[Array, GatedState[Array], Array]:
        """Draws a frame to the state where it is not trusted, and carries it on.

        Args:
            state: value float32 [B, h, w, C], probabilities.
            logits: float32 [B, h, w, C], of the frame with the priors.
            fine: [B, h/2, w/2, width], the decoder's map at 1/8.
            top: [B, h/8, w/8, width], the deepest features.
            active: bool [B], which videos have a frame.

        Returns:
            Logits of the same shape, the state with the frame in it, and how far each
            pixel of the frame was trusted, float32 [B, h, w], 0..1; 1 in a first frame.
        """
        overall = self.trust32(top.mean((1, 2), keepdims=True))
        score = upsample_2x((self.trust8(fine) + overall).astype(jnp.float32))
        trust = jax.nn.sigmoid(score + TRUST_BIAS)
        before = jnp.log(jnp.maximum(state.value, LEAST))
        change = (1 - trust) * (before - jax.nn.log_softmax(logits))
        change = jnp.tanh(GAIN_SCALE * self.gain) * change
        after = jax.vmap(lambda s, new, q, where: blend(s, new, q, where=where))(
            state, jax.nn.softmax(logits), trust, active
        )
        known = _known(state)
        told = jnp.where(known, trust, 1)[..., 0]
        return logits + jnp.where(known, change, 0), after, told


def _known(state: GatedState[Array]) -> Array:
    """bool [B, 1, 1, 1], which videos have a state."""
    return (state.count > 0)[:, None, None, None]


def _halved(x: Array) -> Array:
    """Means of 2x2: [B, H, W, C] -> [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
