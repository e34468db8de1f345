"""How unusual a frame looks, compared with the frames before it.

Written for batches of videos: `B` videos, `h w` = H/16 W/16 cells (`nn.appearance`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import GatedState, blend, init_state
from dmnet_jax.nn.appearance import CELL, CHANNELS

# Number of frames in which the remembered appearance follows that of trusted frames:
# slowly, so that one disturbed frame that was trusted does not hide the next ones.
PACE = 3.5
# The same for the appearance of the scene: longer than a disturbance, so that the scene
# is still known when a disturbance that was trusted has ended.
SCENE_PACE = 60.0
# Changes (in logarithms) below this are noise.
MIN_VARIATION = (0.03, 0.03, 0.03, 0.06, 0.06)
# The usual change is updated by at most this multiple of itself, so that a disturbance
# does not make itself usual.
MAX_SURPRISE = 2.0
# Width of the window around a cell.
_WINDOW = 5


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Looks:
    """What frames looked like.

    Attributes:
        recent: float32 [..., h, w, 5], the last trusted frames.
        scene: float32 [..., h, w, 5], the same over a longer time.
        variation: float32 [..., 1, 1, 5], by how much a frame usually differs from
            `recent`.
        previous: float32 [..., h, w, 5], the last frame, trusted or not.
        differences: float32 [..., 2, 1, 5], by how much the last two frames differed
            from the ones before them, the last one first.
    """

    recent: GatedState[Array]
    scene: GatedState[Array]
    variation: GatedState[Array]
    previous: GatedState[Array]
    differences: GatedState[Array]


def init_looks(size: tuple[int, int]) -> Looks:
    """Creates empty looks for one video with frames of `size` = (H, W)."""
    cells = init_state(jnp.zeros((size[0] // CELL, size[1] // CELL, CHANNELS)))
    variation = init_state(jnp.zeros((1, 1, CHANNELS)))
    differences = init_state(jnp.zeros((2, 1, CHANNELS)))
    return Looks(cells, cells, variation, cells, differences)


def unusual(looks: Looks, appearance: Array, growth: Array) -> list[Array]:
    """Measures how unusual a frame looks.

    Args:
        looks: what the frames before looked like, leaves [B, ...].
        appearance: float32 [B, h, w, 5], the frame.
        growth: by how much changes have grown since a cell was trusted, float32
            [B, h, w, 1] or [].

    Returns:
        Three times float32 [B, h, w, 5]: logarithms of the changes of each cell, of the
        window around it, and of the whole frame, relative to the usual ones; 0 is as
        usual. A change is that from the last trusted frames or from the scene,
        whichever is smaller.
    """
    known = looks.recent.value, looks.scene.value
    change = jnp.minimum(*(jnp.abs(appearance - x) for x in known))
    # A disturbance begins and ends with one difference between frames; if each of the
    # last three frames differs, they are pictures, not video.
    lasting = jnp.minimum(
        looks.differences.value.min(1, keepdims=True), _difference(looks, appearance)
    )
    change /= jnp.maximum(_usual(looks), lasting) * growth
    change = jnp.log((1 + change) / 2)
    window = nn.avg_pool(
        change, (_WINDOW, _WINDOW), padding="SAME", count_include_pad=False
    )
    frame = jnp.broadcast_to(change.mean((1, 2), keepdims=True), change.shape)
    return [change, window, frame]


def remember(
    looks: Looks, appearance: Array, trust: Array, elapsed: Array, active: Array
) -> Looks:
    """Updates what frames look like.

    Args:
        looks: what the frames before looked like, leaves [B, ...].
        appearance: float32 [B, h, w, 5], the frame.
        trust: float32 [B, h, w, 1], trust in the frame.
        elapsed: number of frames since a cell was trusted, float32 [B, h, w, 1] or [].
        active: bool [B], which videos have a frame.
    """
    known = (looks.recent.count > 0)[:, None, None, None]
    surprise = jnp.abs(appearance - looks.recent.value).mean((1, 2), keepdims=True)
    surprise = jnp.minimum(surprise, MAX_SURPRISE * _usual(looks))
    last = _difference(looks, appearance)
    last = jnp.concatenate([last, looks.differences.value[:, :1]], 1)
    pace = trust * (1 - jnp.exp(-elapsed / PACE))
    scene_pace = trust * (1 - jnp.exp(-elapsed / SCENE_PACE))

    @jax.vmap
    def update(
        state: GatedState[Array], new: Array, trust: Array, active: Array
    ) -> GatedState[Array]:
        return blend(state, new, trust, where=active)

    whole = jnp.ones((len(appearance), 1, 1, 1))
    mean_pace = pace.mean((1, 2), keepdims=True)
    return Looks(
        update(looks.recent, appearance, pace, active),
        update(looks.scene, appearance, scene_pace, active),
        update(looks.variation, jnp.where(known, surprise, 0), mean_pace, active),
        update(looks.previous, appearance, whole, active),
        update(looks.differences, jnp.where(known, last, 0), whole, active),
    )


def _usual(looks: Looks) -> Array:
    """Returns the usual change of appearance, above noise, [B, 1, 1, 5]."""
    return looks.variation.value + jnp.array(MIN_VARIATION)


def _difference(looks: Looks, appearance: Array) -> Array:
    """Returns the mean difference from the frame before, [B, 1, 1, 5]."""
    return jnp.abs(appearance - looks.previous.value).mean((1, 2), keepdims=True)
