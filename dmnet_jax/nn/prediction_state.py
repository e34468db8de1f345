"""A network's own predictions, carried from frame to frame."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend, init_state
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.resizing import upsample_2x

# With zero weights a frame is trusted by 0.95: what is carried on is nearly its own.
TRUST_BIAS = 3.0
# The gain's parameter is this much smaller than the gain, so that an optimizer whose
# steps are as large as its learning rate (Adam) reaches 1 in a hundred steps.
GAIN_SCALE = 30.0
# Frames over which what is carried is as good as seen: a burst's length, not a scene's.
HORIZON = 8.0
# Probabilities below this are as good as zero.
LEAST = 1e-4

ZEROS = nn.initializers.zeros

Part = Literal["jump", "age"]
PARTS: tuple[Part, ...] = ("jump", "age")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Carried:
    """What goes from frame to frame, renewed as far as a frame is trusted.

    Attributes:
        probabilities: float32 [..., h, w, C], at 1/4 of the frame.
        features: [..., h/8, w/8, width], the deepest. A frame that is far from them is
            another scene, or the same one disturbed: that tells without having seen
            the disturbance before. Nothing ({}) if the jump is no cue.
        age: float32 [..., h/2, w/2, 1], frames since a place was trusted: the older
            what is carried, the less it is worth. Nothing if age is no cue.
    """

    probabilities: GatedState[Array]
    features: GatedState[Any]
    age: GatedState[Any]


class PredictionState(nn.Module):
    """Corrects a frame's logits with the class probabilities of the frames before.

    The gain starts at zero: with fresh parameters the network is what it is without a
    state. The first frame of a video is used unchanged.

    Attributes:
        width: channels of the decoder.
        channels: of the hidden layer that trust is computed from.
        parts: "jump" lets trust see how far the deepest features are from those last
            trusted, "age" how long ago that was.
    """

    width: int = 256
    channels: int = 32
    parts: tuple[Part, ...] = PARTS
    dtype: Any = jnp.float32

    def setup(self) -> None:
        def dense(features: int, **options: Any) -> Dense1x1:
            return Dense1x1(features, dtype=self.dtype, **options)

        self.trust_fine = dense(self.channels, use_bias=True)
        self.trust_frame, self.trust_doubt = dense(self.channels), dense(self.channels)
        self.trust_score = dense(1, kernel_init=ZEROS)
        self.gain = self.param("gain", ZEROS, ())
        if "jump" in self.parts:
            self.trust_change = dense(self.channels)

    @nn.nowrap
    def init_carried(self, size: tuple[int, int], classes: int) -> Carried:
        """Empty, for one video of frames `size` = (H, W)."""
        h, w = (n // 32 for n in size)

        def part(name: Part, x: Any) -> GatedState[Any]:
            return init_state(x if name in self.parts else {})

        return Carried(
            init_state(jnp.zeros((8 * h, 8 * w, classes))),
            part("jump", jnp.zeros((h, w, self.width), self.dtype)),
            part("age", jnp.zeros((4 * h, 4 * w, 1))),
        )

    def __call__(
        self,
        state: Carried,
        logits: Array,
        fine: Array,
        top: Array,
        active: Array,
    ) -> tuple[Array, Carried, Array]:
        """Draws a frame to the state where it is not trusted, and carries it on.

        Args:
            state: of the frames before.
            logits: float32 [B, h, w, C], of the frame alone.
            fine: [B, h/2, w/2, width], the decoder's map at 1/8.
            top: [B, h/8, w/8, width], the deepest features.
            active: bool [B], which videos have a frame.

        Returns:
            Logits of the same shape, the state with the frame in it, and how far each
            pixel of the frame was trusted, float32 [B, h, w], 0..1; 1 in a first frame.
        """
        new, old = jax.nn.softmax(logits), state.probabilities.value
        known = _known(state)
        trust = jnp.where(known, self._trust(state, new, fine, top), 1)
        change = (1 - trust) * (_log(old) - jax.nn.log_softmax(logits))
        change = jnp.tanh(GAIN_SCALE * self.gain) * change
        half = _halved(trust)
        coarse = _halved(_halved(half)).astype(top.dtype)
        older = jax.tree.map(lambda age: (1 - half) * (age + 1), state.age.value)

        def carry(old: Any, new: Any, trust: Array) -> Any:
            return jax.vmap(lambda s, x, q, where: blend(s, x, q, where=where))(
                old, new, trust, active
            )

        after = Carried(
            carry(state.probabilities, new, trust),
            carry(state.features, top if "jump" in self.parts else {}, coarse),
            carry(state.age, older, jnp.ones_like(half)),
        )
        return logits + jnp.where(known, change, 0), after, trust[..., 0]

    def _trust(self, state: Carried, new: Array, fine: Array, top: Array) -> Array:
        """How far each pixel of a frame is trusted: float32 [B, h, w, 1] in 0..1.

        As the gain of a Kalman filter of a random walk, its odds grow with how long
        nothing was learned of a place, past a horizon, and a jump is measured by what
        things may have moved since. So no place is distrusted for good.
        """
        before = state.probabilities.value
        doubt = [
            -(new * _log(new)).sum(-1, keepdims=True),
            -(before * _log(before)).sum(-1, keepdims=True),
            1 - (new * before).sum(-1, keepdims=True),
        ]
        doubt = _halved(jnp.concatenate(doubt, -1)).astype(self.dtype)
        hidden = self.trust_fine(fine) + self.trust_doubt(doubt)
        whole, older = [top], 0.0
        if "jump" in self.parts:
            jump = jnp.abs(top - state.features.value)
            if "age" in self.parts:
                age = _halved(_halved(state.age.value))
                jump *= jax.lax.rsqrt(1 + age / HORIZON).astype(jump.dtype)
            whole.append(jump)
            hidden += upsample_2x(upsample_2x(self.trust_change(jump)))
        whole = jnp.concatenate(whole, -1).mean((1, 2), keepdims=True)
        score = self.trust_score(nn.relu(hidden + self.trust_frame(whole)))
        if "age" in self.parts:
            older = jnp.log1p(nn.relu(state.age.value - HORIZON))
        score = score.astype(jnp.float32) + older
        return jax.nn.sigmoid(upsample_2x(score) + TRUST_BIAS)


def _log(probabilities: Array) -> Array:
    return jnp.log(jnp.maximum(probabilities, LEAST))


def _known(state: Carried) -> Array:
    """bool [B, 1, 1, 1], which videos have a state."""
    return (state.probabilities.count > 0)[:, None, None, None]


def _halved(x: Array) -> Array:
    """Means of 2x2: [B, H, W, C] -> [B, H/2, W/2, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
