"""A recurrent state of class probabilities that corrects a network's predictions."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend, init_state
from dmnet_jax.nn.areas import area_changes
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.nn.looks import Looks, init_looks, remember, unusual
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
# Growth of the log-odds of trust with each frame beyond the horizon: a scene that
# stays changed is another scene.
RECOVERY = 0.5
# Probabilities are clipped to this before the logarithm.
MIN_PROBABILITY = 1e-4

# The weights of appearance and of areas are these factors times their parameters, see
# `GAIN_SCALE`.
APPEARANCE_SCALE, AREAS_SCALE = 150.0, 50.0

ZEROS = nn.initializers.zeros

Part = Literal["appearance", "areas", "age"]
PARTS: tuple[Part, ...] = ("appearance", "areas", "age")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PredictionCarry:
    """The state that is carried from frame to frame, blended by trust.

    Attributes:
        probabilities: float32 [..., h, w, C], class probabilities at 1/4 of the frame
            size.
        age: float32 [..., h/2, w/2, 1], number of frames since a position was trusted.
            The older the state, the less reliable it is. Empty ({}) without "age".
        looks: what frames looked like. Empty ({}) without "appearance".
    """

    probabilities: GatedState[Array]
    age: GatedState[Any]
    looks: Looks | dict[str, Any]


class PredictionState(nn.Module):
    """Corrects a frame's logits with the class probabilities of previous frames.

    The gain is initialized to zero, so an untrained state does not change the network's
    output. The first frame of a video is used unchanged.

    Attributes:
        channels: number of channels of the hidden layer from which trust is computed.
        parts: inputs of trust besides the probabilities: with "appearance", how
            unusual the change of brightness, color, contrast and sharpness is; with
            "areas", whether classes moved or only lost or gained area (`nn.areas`);
            with "age", the time since a position was trusted.
        dtype: dtype of the layers.
    """

    channels: int = 32
    parts: tuple[Part, ...] = PARTS
    dtype: Any = jnp.float32

    def setup(self) -> None:
        def dense(features: int, **options: Any) -> Dense1x1:
            return Dense1x1(features, dtype=self.dtype, **options)

        self.trust_doubt = dense(self.channels, use_bias=True)
        self.trust_score = dense(1, kernel_init=ZEROS)
        self.gain = self.param("gain", ZEROS, ())
        if "appearance" in self.parts:
            self.trust_appearance = dense(self.channels)
            self.appearance_weight = dense(1, kernel_init=ZEROS)
        if "areas" in self.parts:
            self.trust_areas = dense(self.channels)
            self.areas_weight = dense(1, kernel_init=ZEROS)

    @nn.nowrap
    def init_carry(self, size: tuple[int, int], classes: int) -> PredictionCarry:
        """Creates an empty state for one video.

        Args:
            size: (H, W) of the frames.
            classes: number of classes.
        """
        height, width = size
        age = jnp.zeros((height // 8, width // 8, 1)) if "age" in self.parts else {}
        return PredictionCarry(
            init_state(jnp.zeros((height // 4, width // 4, classes))),
            init_state(age),
            init_looks(size) if "appearance" in self.parts else {},
        )

    def __call__(
        self,
        state: PredictionCarry,
        logits: Array,
        appearance: Array,
        active: Array,
    ) -> tuple[Array, PredictionCarry, Array]:
        """Moves logits toward the state where the frame is not trusted; updates it.

        Args:
            state: state after the previous frame.
            logits: float32 [B, h, w, C], logits of this frame alone.
            appearance: float32 [B, h/4, w/4, 5], see `nn.appearance`.
            active: bool [B], which videos have a frame.

        Returns:
            The corrected logits, the updated state, and the trust in each pixel of the
            frame, float32 [B, h, w] in 0..1; 1 in the first frame of a video.
        """
        old = state.probabilities.value
        has_state = (state.probabilities.count > 0)[:, None, None, None]
        new = jax.nn.softmax(logits)
        trust = self._trust(state, new, appearance)
        trust = jnp.where(has_state, trust, 1)
        change = (1 - trust) * (safe_log(old) - jax.nn.log_softmax(logits))
        change = jnp.tanh(GAIN_SCALE * self.gain) * change
        half = mean_2x2(trust)
        older = jax.tree.map(lambda age: (1 - half) * (age + 1), state.age.value)

        def carry(old: Any, new: Any, trust: Array) -> Any:
            return jax.vmap(lambda s, x, q, where: blend(s, x, q, where=where))(
                old, new, trust, active
            )

        looks = state.looks
        if isinstance(looks, Looks):
            elapsed = self._cell_age(state) + 1
            looks = remember(looks, appearance, mean_2x2(half), elapsed, active)
        updated = PredictionCarry(
            carry(state.probabilities, new, trust),
            carry(state.age, older, jnp.ones_like(half)),
            looks,
        )
        return logits + jnp.where(has_state, change, 0), updated, trust[..., 0]

    def _trust(self, state: PredictionCarry, new: Array, appearance: Array) -> Array:
        """Computes the trust in each pixel of a frame, float32 [B, h, w, 1] in 0..1.

        As in a Kalman filter for a random walk, changes are scaled down by how far
        things may have moved since a position was last trusted. Beyond a horizon, the
        odds of trust grow with every frame, so no position is distrusted forever.
        """
        old = state.probabilities.value
        entropy = -(new * safe_log(new)).sum(-1, keepdims=True)
        doubt = [
            entropy,
            -(old * safe_log(old)).sum(-1, keepdims=True),
            1 - (new * old).sum(-1, keepdims=True),
        ]
        doubt = mean_2x2(jnp.concatenate(doubt, -1)).astype(self.dtype)
        # What is measured for cells of 16x16 pixels goes through the hidden layer and
        # has weights of its own.
        cells = jnp.zeros((*appearance.shape[:-1], self.channels), self.dtype)
        direct = jnp.zeros((*appearance.shape[:-1], 1))
        share = jnp.float32(1)
        if isinstance(state.looks, Looks):
            growth = jnp.sqrt(1 + self._cell_age(state) / HORIZON)
            changes = unusual(state.looks, appearance, growth)
            most = jnp.concatenate([x.max(-1, keepdims=True) for x in changes], -1)
            weighted = self.appearance_weight(most.astype(self.dtype))
            direct += APPEARANCE_SCALE * weighted.astype(jnp.float32)
            changes = jnp.concatenate(changes, -1).astype(self.dtype)
            cells += self.trust_appearance(changes)
            # Areas tell whether the network survives a disturbance, not whether there
            # is one: where a frame looks as usual, they do not count.
            share = jnp.clip(most[..., 1:], 0, 1).repeat(5, -1)
        if "areas" in self.parts:
            areas = (share * area_changes(new, old, entropy)).astype(self.dtype)
            direct += AREAS_SCALE * self.areas_weight(areas).astype(jnp.float32)
            cells += self.trust_areas(areas)
        hidden = nn.relu(self.trust_doubt(doubt) + upsample_2x(cells))
        score = self.trust_score(hidden).astype(jnp.float32) + upsample_2x(direct)
        if "age" in self.parts:
            score += RECOVERY * nn.relu(state.age.value - HORIZON)
        return jax.nn.sigmoid(upsample_2x(score) + TRUST_BIAS)

    def _cell_age(self, state: PredictionCarry) -> Array:
        """Returns the age of cells of 16x16 pixels, [B, h/4, w/4, 1] or 0."""
        return mean_2x2(state.age.value) if "age" in self.parts else jnp.float32(0)


def safe_log(probabilities: Array) -> Array:
    """Returns the logarithm of probabilities, bounded below."""
    return jnp.log(jnp.maximum(probabilities, MIN_PROBABILITY))
