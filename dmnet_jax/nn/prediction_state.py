"""A recurrent state of class probabilities that corrects a network's predictions."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend, init_state
from dmnet_jax.nn.appearance import CHANNELS
from dmnet_jax.nn.areas import area_changes
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
# Growth of the log-odds of trust with each frame beyond the horizon: a scene that
# stays changed is another scene.
RECOVERY = 0.5
# Probabilities are clipped to this before the logarithm.
MIN_PROBABILITY = 1e-4

# Number of frames in which the remembered appearance follows that of trusted frames:
# slowly, so that one disturbed frame that was trusted does not hide the next ones.
PACE = 3.5
# The same for the appearance of the scene: longer than a disturbance, so that the scene
# is still known when a disturbance that was trusted has ended.
SCENE_PACE = 60.0
# Changes of appearance (`nn.appearance`, in logarithms) below this are noise.
MIN_VARIATION = (0.03, 0.03, 0.03, 0.06, 0.06)
# The usual change is updated by at most this multiple of itself, so that a disturbance
# does not make itself usual.
MAX_SURPRISE = 2.0
# The weights of appearance and of areas are these factors times their parameters, see
# `GAIN_SCALE`.
APPEARANCE_SCALE, AREAS_SCALE = 150.0, 50.0

# Width of the window over which the prior spreads, at 1/4 of the frame size: things
# that move by up to 8 pixels from frame to frame stay within it. Appearance is averaged
# over the same number of cells.
WINDOW = 5
# Share of pixels that change their class from frame to frame for any reason. It bounds
# how strongly the prior contradicts a frame.
CHANGE = 0.02

ZEROS = nn.initializers.zeros

Part = Literal["appearance", "areas", "jump", "age", "prior"]
PARTS: tuple[Part, ...] = ("appearance", "areas", "age")


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
        appearance: float32 [..., h/4, w/4, 5], what the last trusted frames looked
            like. Empty without "appearance".
        scene: float32 [..., h/4, w/4, 5], the same over a longer time.
        variation: float32 [..., 1, 1, 5], by how much a frame usually differs from
            `appearance`. Empty without "appearance".
        previous: float32 [..., h/4, w/4, 5], what the last frame looked like, trusted
            or not. Empty without "appearance".
        differences: float32 [..., 1, 1, 10], by how much the last two frames differed
            from the ones before them. Empty without "appearance".
    """

    probabilities: GatedState[Array]
    features: GatedState[Any]
    age: GatedState[Any]
    appearance: GatedState[Any]
    scene: GatedState[Any]
    variation: GatedState[Any]
    previous: GatedState[Any]
    differences: GatedState[Any]


class PredictionState(nn.Module):
    """Corrects a frame's logits with the class probabilities of previous frames.

    The gain is initialized to zero, so an untrained state does not change the network's
    output. The first frame of a video is used unchanged.

    Attributes:
        width: number of channels of the decoder; only used with "jump".
        channels: number of channels of the hidden layer from which trust is computed.
        parts: inputs of trust besides the probabilities: with "appearance", how
            unusual the change of brightness, color, contrast and sharpness is; with
            "areas", whether classes moved or only lost or gained area (`nn.areas`);
            with "age", the time since a position was trusted; with "jump", the
            network's features and their distance from those last trusted. With "prior",
            the state also decides between classes that a frame leaves open: spread over
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

        self.trust_doubt = dense(self.channels, use_bias="jump" not in self.parts)
        self.trust_score = dense(1, kernel_init=ZEROS)
        self.gain = self.param("gain", ZEROS, ())
        if "appearance" in self.parts:
            self.trust_appearance = dense(self.channels)
            self.appearance_weight = dense(1, kernel_init=ZEROS)
        if "areas" in self.parts:
            self.trust_areas = dense(self.channels)
            self.areas_weight = dense(1, kernel_init=ZEROS)
        if "jump" in self.parts:
            self.trust_fine = dense(self.channels, use_bias=True)
            self.trust_frame = dense(self.channels)
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
            part("appearance", jnp.zeros((2 * h, 2 * w, CHANNELS))),
            part("appearance", jnp.zeros((2 * h, 2 * w, CHANNELS))),
            part("appearance", jnp.zeros((1, 1, CHANNELS))),
            part("appearance", jnp.zeros((2 * h, 2 * w, CHANNELS))),
            part("appearance", jnp.zeros((1, 1, 2 * CHANNELS))),
        )

    def __call__(
        self,
        state: PredictionCarry,
        logits: Array,
        fine: Array | None,
        top: Array,
        appearance: Array,
        active: Array,
    ) -> tuple[Array, PredictionCarry, Array]:
        """Moves logits toward the state where the frame is not trusted; updates it.

        Args:
            state: state after the previous frame.
            logits: float32 [B, h, w, C], logits of this frame alone.
            fine: [B, h/2, w/2, width], the decoder's map at 1/8 resolution; only used
                with "jump".
            top: [B, h/8, w/8, width], the deepest features; only used with "jump".
            appearance: float32 [B, h/4, w/4, 5], see `nn.appearance`.
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
        trust = self._trust(state, new, fine, top, appearance)
        trust = jnp.where(has_state, trust, 1)
        change = (1 - trust) * (safe_log(old) - jax.nn.log_softmax(logits))
        change = jnp.tanh(GAIN_SCALE * self.gain) * change
        half = mean_2x2(trust)
        coarse = mean_2x2(mean_2x2(half)).astype(top.dtype)
        age = jax.tree.map(lambda age: (1 - half) * (age + 1), state.age.value)

        def carry(old: Any, new: Any, trust: Array) -> Any:
            return jax.vmap(lambda s, x, q, where: blend(s, x, q, where=where))(
                old, new, trust, active
            )

        looks, scene, variation = state.appearance, state.scene, state.variation
        previous, differences = state.previous, state.differences
        if "appearance" in self.parts:
            elapsed = mean_2x2(state.age.value) + 1 if "age" in self.parts else 1
            cell = mean_2x2(half)
            pace = cell * (1 - jnp.exp(-elapsed / PACE))
            surprise = jnp.abs(appearance - looks.value).mean((1, 2), keepdims=True)
            surprise = jnp.minimum(surprise, MAX_SURPRISE * _usual(state))
            surprise = jnp.where(has_state, surprise, 0)
            looks = carry(looks, appearance, pace)
            scene = carry(
                scene, appearance, cell * (1 - jnp.exp(-elapsed / SCENE_PACE))
            )
            variation = carry(variation, surprise, pace.mean((1, 2), keepdims=True))
            last = jnp.where(has_state, _difference(state, appearance), 0)
            last = jnp.concatenate([last, differences.value[..., :CHANNELS]], -1)
            previous = carry(previous, appearance, jnp.ones_like(cell))
            differences = carry(differences, last, jnp.ones_like(last[..., :1]))
        updated = PredictionCarry(
            carry(state.probabilities, new, trust),
            carry(state.features, top if "jump" in self.parts else {}, coarse),
            carry(state.age, age, jnp.ones_like(half)),
            looks,
            scene,
            variation,
            previous,
            differences,
        )
        return logits + jnp.where(has_state, change, 0), updated, trust[..., 0]

    def _trust(
        self,
        state: PredictionCarry,
        new: Array,
        fine: Array | None,
        top: Array,
        appearance: Array,
    ) -> Array:
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
        hidden, direct = self.trust_doubt(doubt), jnp.float32(0)
        if "appearance" in self.parts:
            changes = self._changes(state, appearance)
            most = jnp.concatenate([x.max(-1, keepdims=True) for x in changes], -1)
            weighted = self.appearance_weight(most.astype(self.dtype))
            direct += APPEARANCE_SCALE * upsample_2x(weighted.astype(jnp.float32))
            hidden += upsample_2x(
                self.trust_appearance(jnp.concatenate(changes, -1).astype(self.dtype))
            )
        if "areas" in self.parts:
            areas = area_changes(new, old, entropy)
            if "appearance" in self.parts:
                # Areas tell whether the network survives a disturbance, not whether
                # there is one: where a frame looks as usual, they do not count.
                areas *= jnp.clip(most[..., 1:], 0, 1).repeat(5, -1)
            areas = areas.astype(self.dtype)
            weighted = self.areas_weight(areas)
            direct += AREAS_SCALE * upsample_2x(weighted.astype(jnp.float32))
            hidden += upsample_2x(self.trust_areas(areas))
        if "jump" in self.parts:
            assert fine is not None
            jump = jnp.abs(top - state.features.value)
            if "age" in self.parts:
                age = mean_2x2(mean_2x2(state.age.value))
                jump *= jax.lax.rsqrt(1 + age / HORIZON).astype(jump.dtype)
            frame_mean = jnp.concatenate([top, jump], -1).mean((1, 2), keepdims=True)
            hidden += self.trust_fine(fine) + self.trust_frame(frame_mean)
            hidden += upsample_2x(upsample_2x(self.trust_change(jump)))
        score = self.trust_score(nn.relu(hidden)).astype(jnp.float32) + direct
        if "age" in self.parts:
            score += RECOVERY * nn.relu(state.age.value - HORIZON)
        return jax.nn.sigmoid(upsample_2x(score) + TRUST_BIAS)

    def _changes(self, state: PredictionCarry, appearance: Array) -> list[Array]:
        """Returns how unusual a frame looks, three times [B, h/4, w/4, 5].

        These are logarithms of changes relative to the usual ones: of a cell, of the
        window around it, and of the whole frame. As usual is 0. A change is that from
        the last trusted frames or from the scene, whichever is smaller.
        """
        known = state.appearance.value, state.scene.value
        change = jnp.minimum(*(jnp.abs(appearance - x) for x in known))
        # A disturbance begins and ends with one difference between frames; if each of
        # the last three frames differs, they are pictures, not video.
        before = jnp.minimum(*jnp.split(state.differences.value, 2, -1))
        lasting = jnp.minimum(before, _difference(state, appearance))
        change /= jnp.maximum(_usual(state), lasting)
        if "age" in self.parts:
            change *= jax.lax.rsqrt(1 + mean_2x2(state.age.value) / HORIZON)
        change = jnp.log((1 + change) / 2)
        frame = jnp.broadcast_to(change.mean((1, 2), keepdims=True), change.shape)
        return [change, _window_mean(change), frame]


def _usual(state: PredictionCarry) -> Array:
    """Returns the usual change of appearance, above noise, [B, 1, 1, 5]."""
    return state.variation.value + jnp.array(MIN_VARIATION)


def _difference(state: PredictionCarry, appearance: Array) -> Array:
    """Returns the mean difference from the frame before, [B, 1, 1, 5]."""
    return jnp.abs(appearance - state.previous.value).mean((1, 2), keepdims=True)


def safe_log(probabilities: Array) -> Array:
    """Returns the logarithm of probabilities, bounded below."""
    return jnp.log(jnp.maximum(probabilities, MIN_PROBABILITY))


def _spread(probabilities: Array) -> Array:
    """Returns where classes may be in the next frame, float32 [B, h, w, C]."""
    spread = _window_mean(probabilities)
    return (1 - CHANGE) * spread + CHANGE / spread.shape[-1]


def _window_mean(x: Array) -> Array:
    """Averages over the window around each position: [B, h, w, C]."""
    window = (WINDOW, WINDOW)
    return nn.avg_pool(x, window, padding="SAME", count_include_pad=False)
