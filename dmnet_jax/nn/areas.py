"""How the areas of classes differ between two predictions.

Where things move, a class loses area in one place and gains about as much in another.
A frame that no longer shows them makes a class lose area, or gain it, without a
counterpart. This tells a disturbance that the network survives from one that it does
not, in whatever way either changes the picture. What it does not survive shows fewer
classes than before; another scene after a cut shows as many.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.nn.resizing import mean_2x2

# Width of the windows, in units of 16 pixels: about that of an instrument.
_WINDOW = 11
# Shares of area and entropies (in nats) that give 0, and what is added to them, so that
# what is negligible does not vary.
_TYPICAL_SHARE, _MIN_SHARE = 0.03, 1e-4
_TYPICAL_ENTROPY, _MIN_ENTROPY = 0.1, 1e-3
_TYPICAL_DIVERSITY, _MIN_DIVERSITY = 0.3, 1e-2


def area_changes(new: Array, old: Array, entropy: Array) -> Array:
    """Measures how areas differ, in a window at each position and in the whole frame.

    Args:
        new: float32 [B, h, w, C], class probabilities of a frame; h and w are multiples
            of 4.
        old: float32 [B, h, w, C], those that are remembered.
        entropy: float32 [B, h, w, 1], entropy of `new` in nats.

    Returns:
        float32 [B, h/4, w/4, 10]: logarithms, relative to typical values, of the area
        that moved (lost in one place, gained in another by the same class), of the area
        that classes lost or gained on balance, of the mean entropy of `new`, and of the
        diversity of `new` and of `old`, which is the entropy of their mean; first of
        the window, then of the frame.
    """
    maps = jnp.concatenate([nn.relu(old - new), new, old, entropy], -1)
    maps = mean_2x2(mean_2x2(maps))
    size = (_WINDOW, _WINDOW)
    window = nn.avg_pool(maps, size, padding="SAME", count_include_pad=False)
    frame = jnp.broadcast_to(maps.mean((1, 2), keepdims=True), maps.shape)
    measures = []
    for means in (window, frame):
        lost, seen, known = jnp.split(means[..., :-1], 3, -1)
        gained = nn.relu(lost + seen - known)
        moved = jnp.minimum(lost, gained).sum(-1)
        balance = jnp.abs(lost - gained).sum(-1)
        measures += [
            jnp.log((moved + _MIN_SHARE) / _TYPICAL_SHARE),
            jnp.log((balance + _MIN_SHARE) / _TYPICAL_SHARE),
            jnp.log((means[..., -1] + _MIN_ENTROPY) / _TYPICAL_ENTROPY),
            *(
                jnp.log((_diversity(x) + _MIN_DIVERSITY) / _TYPICAL_DIVERSITY)
                for x in (seen, known)
            ),
        ]
    return jnp.stack(measures, -1)


def _diversity(means: Array) -> Array:
    """Returns the entropy of mean class probabilities [..., C], in nats."""
    return -(means * jnp.log(jnp.maximum(means, 1e-6))).sum(-1)
