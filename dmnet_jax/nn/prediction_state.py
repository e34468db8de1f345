"""A recurrent state of class probabilities that corrects a network's predictions."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend, init_state
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.resizing import mean_2x2, upsample_2x

# With zero weights, the trust in a frame is sigmoid(3) = 0.95: the state is nearly the
# frame itself.
TRUST_BIAS = 3.0
# The gain is this factor times its parameter, so that Adam, whose steps are about as
# large as the learning rate, reaches a gain of 1 in a hundred steps.
GAIN_SCALE = 30.0
# Number of frames for which the state counts as recent: about the length of a burst of
# disturbed frames, not of a scene.
HORIZON = 8.0
# Probabilities are clipped to this before the logarithm.
MIN_PROBABILITY = 1e-4

# Width of the window over which the prior spreads, at 1/4 of the frame size: things
# that move by up to 8 pixels from frame to frame stay within it.
WINDOW = 5
# Share of pixels that change their class from frame to frame for any reason. It bounds
# how strongly the prior contradicts a frame.
CHANGE = 0.02

ZEROS = nn.initializers.zeros

Part = Literal["jump", "age", "prior"]
PARTS: tuple[Part, ...] = ("jump", "age")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PredictionCarry:
    """The state that is carried from frame to frame, blended by trust.

    Attributes:
        probabilities: float32 [..., h, w, C], class probabilities at 1/4 of the frame
            size.
        features: [..., h/8, w/8, width], the deepest features. A frame whose features
            are far from these shows another scene, or the same scene disturbed. This
            cue also works for disturbances that training did not contain. Empty ({})
            without "jump".
        age: float32 [..., h/2, w/2, 1], number of frames since a position was trusted.
            The older the state, the less reliable it is. Empty without "age".
    """

    probabilities: GatedState[Array]
    features: GatedState[Any]
    age: GatedState[Any]


class PredictionState(nn.Module):
    """Corrects a frame's logits with the class probabilities of previous frames.

    The gain is initialized to zero, so an untrained state does not change the network's
    output. The first frame of a video is used unchanged.

    Attributes:
        width: number of channels of the decoder.
        channels: number of channels of the hidden layer from which trust is computed.
        parts: inputs of trust: with "jump", the distance of the deepest features from
            those last trusted; with "age", the time since then. With "prior", the
            state also decides between classes that a frame leaves open: spread over
            a small window, it is the prior of a Bayes filter, whose weight is learned.
        dtype: dtype of the layers.
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
        if "prior" in self.parts:
            self.prior = self.param("prior", ZEROS, ())

    @nn.nowrap
    def init_carry(self, size: tuple[int, int], classes: int) -> PredictionCarry:
        """Creates an empty state for one video.

        Args:
            size: (H, W) of the frames.
            classes: number of classes.
        """
        h, w = (n // 32 for n in size)

        def part(name: Part, x: Any) -> GatedState[Any]:
            return init_state(x if name in self.parts else {})

        return PredictionCarry(
            init_state(jnp.zeros((8 * h, 8 * w, classes))),
            part("jump", jnp.zeros((h, w, self.width), self.dtype)),
            part("age", jnp.zeros((4 * h, 4 * w, 1))),
        )

    def __call__(
        self,
        state: PredictionCarry,
        logits: Array,
        fine: Array,
        top: Array,
        active: Array,
    ) -> tuple[Array, PredictionCarry, Array]:
        """Moves logits toward the state where the frame is not trusted; updates it.

        Args:
            state: state after the previous frame.
            logits: float32 [B, h, w, C], logits of this frame alone.
            fine: [B, h/2, w/2, width], the decoder's map at 1/8 resolution.
            top: [B, h/8, w/8, width], the deepest features.
            active: bool [B], which videos have a frame.

        Returns:
            The corrected logits, the updated state, and the trust in each pixel of the
            frame, float32 [B, h, w] in 0..1; 1 in the first frame of a video.
        """
        old = state.probabilities.value
        has_state = (state.probabilities.count > 0)[:, None, None, None]
        if "prior" in self.parts:
            weight = jnp.tanh(GAIN_SCALE * self.prior)
            logits += jnp.where(has_state, weight * jnp.log(_spread(old)), 0)
        new = jax.nn.softmax(logits)
        trust = jnp.where(has_state, self._trust(state, new, fine, top), 1)
        change = (1 - trust) * (safe_log(old) - jax.nn.log_softmax(logits))
        change = jnp.tanh(GAIN_SCALE * self.gain) * change
        half = mean_2x2(trust)
        coarse = mean_2x2(mean_2x2(half)).astype(top.dtype)
        age = jax.tree.map(lambda age: (1 - half) * (age + 1), state.age.value)

        def carry(old: Any, new: Any, trust: Array) -> Any:
            return jax.vmap(lambda s, x, q, where: blend(s, x, q, where=where))(
                old, new, trust, active
            )

        updated = PredictionCarry(
            carry(state.probabilities, new, trust),
            carry(state.features, top if "jump" in self.parts else {}, coarse),
            carry(state.age, age, jnp.ones_like(half)),
        )
        return logits + jnp.where(has_state, change, 0), updated, trust[..., 0]

    def _trust(
        self, state: PredictionCarry, new: Array, fine: Array, top: Array
    ) -> Array:
        """Computes the trust in each pixel of a frame, float32 [B, h, w, 1] in 0..1.

        Like the gain of a Kalman filter for a random walk, the odds of trust grow with
        the time since a position was last trusted, beyond a horizon. Likewise, a jump
        is scaled down by how far things may have moved since then. No position is
        therefore distrusted forever.
        """
        old = state.probabilities.value
        doubt = [
            -(new * safe_log(new)).sum(-1, keepdims=True),
            -(old * safe_log(old)).sum(-1, keepdims=True),
            1 - (new * old).sum(-1, keepdims=True),
        ]
        doubt = mean_2x2(jnp.concatenate(doubt, -1)).astype(self.dtype)
        hidden = self.trust_fine(fine) + self.trust_doubt(doubt)
        frame_inputs = [top]
        if "jump" in self.parts:
            jump = jnp.abs(top - state.features.value)
            if "age" in self.parts:
                age = mean_2x2(mean_2x2(state.age.value))
                jump *= jax.lax.rsqrt(1 + age / HORIZON).astype(jump.dtype)
            frame_inputs.append(jump)
            hidden += upsample_2x(upsample_2x(self.trust_change(jump)))
        frame_mean = jnp.concatenate(frame_inputs, -1).mean((1, 2), keepdims=True)
        score = self.trust_score(nn.relu(hidden + self.trust_frame(frame_mean)))
        score = score.astype(jnp.float32)
        if "age" in self.parts:
            score += jnp.log1p(nn.relu(state.age.value - HORIZON))
        return jax.nn.sigmoid(upsample_2x(score) + TRUST_BIAS)


def safe_log(probabilities: Array) -> Array:
    """Returns the logarithm of probabilities, bounded below."""
    return jnp.log(jnp.maximum(probabilities, MIN_PROBABILITY))


def _spread(probabilities: Array) -> Array:
    """Returns where classes may be in the next frame, float32 [B, h, w, C]."""
    spread = nn.avg_pool(
        probabilities, (WINDOW, WINDOW), padding="SAME", count_include_pad=False
    )
    return (1 - CHANGE) * spread + CHANGE / spread.shape[-1]
