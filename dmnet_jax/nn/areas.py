"""How the areas of classes differ between two predictions.

Where things move, a class loses area in one place and gains about as much in another.
A frame that no longer shows them makes a class lose area, or gain it, without a
counterpart. This tells a disturbance that the network survives from one that it does
not, in whatever way either changes the picture.
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


def area_changes(new: Array, old: Array, entropy: Array) -> Array:
    """Measures how areas differ, in a window at each position and in the whole frame.

    Args:
        new: float32 [B, h, w, C], class probabilities of a frame; h and w are multiples
            of 4.
        old: float32 [B, h, w, C], those that are remembered.
        entropy: float32 [B, h, w, 1], entropy of `new` in nats.

    Returns:
        float32 [B, h/4, w/4, 6]: logarithms, relative to typical values, of the area
        that moved (lost in one place, gained in another by the same class), of the area
        that classes lost or gained on balance, and of the mean entropy of `new`; first
        of the window, then of the frame.
    """
    classes = new.shape[-1]
    maps = [nn.relu(old - new), nn.relu(new - old), entropy]
    maps = mean_2x2(mean_2x2(jnp.concatenate(maps, -1)))
    size = (_WINDOW, _WINDOW)
    window = nn.avg_pool(maps, size, padding="SAME", count_include_pad=False)
    frame = jnp.broadcast_to(maps.mean((1, 2), keepdims=True), maps.shape)
    measures = []
    for means in (window, frame):
        lost, gained = means[..., :classes], means[..., classes:-1]
        moved = jnp.minimum(lost, gained).sum(-1)
        balance = jnp.abs(lost - gained).sum(-1)
        measures += [
            jnp.log((moved + _MIN_SHARE) / _TYPICAL_SHARE),
            jnp.log((balance + _MIN_SHARE) / _TYPICAL_SHARE),
            jnp.log((means[..., -1] + _MIN_ENTROPY) / _TYPICAL_ENTROPY),
        ]
    return jnp.stack(measures, -1)
