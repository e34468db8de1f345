"""What small cells of a frame look like, whatever they show.

The features of a network that was trained on corrupted frames hide a disturbance that
they do not survive. Brightness, contrast and sharpness do not.
"""

import jax.numpy as jnp
from jax import Array

from dmnet_jax.nn.resizing import mean_2x2

CELL = 16
"""Width and height of a cell in pixels."""

CHANNELS = 5
# Added before the logarithm, in units of the full range, so that dark and smooth cells
# do not vary more than bright and textured ones.
_MIN_LEVEL, _MIN_CONTRAST, _MIN_SHARPNESS = 0.02, 0.02, 0.01


def appearance(frames: Array) -> Array:
    """Measures the brightness, color, contrast and sharpness of cells.

    Args:
        frames: float32 RGB in 0..1 [N, H, W, 3]; H and W are multiples of 16.

    Returns:
        float32 [N, H/16, W/16, 5]: logarithms of the mean red, green and blue, of the
        standard deviation of gray, and of its root-mean-square gradient at half of the
        frame's size.
    """
    gray = frames.mean(-1, keepdims=True)
    half = mean_2x2(gray)
    across = jnp.diff(half, axis=2, append=half[:, :, -1:])
    down = jnp.diff(half, axis=1, append=half[:, -1:])
    mean, cells = _cells(frames, CELL).mean((2, 4)), _cells(gray, CELL)
    # Not the mean square minus the squared mean, whose rounding errors are seen where
    # a cell is uniform.
    variance = ((cells - cells.mean((2, 4), keepdims=True)) ** 2).mean((2, 4))
    slope = _cells(across**2 + down**2, CELL // 2).mean((2, 4))
    return jnp.concatenate(
        [
            jnp.log(mean + _MIN_LEVEL),
            jnp.log(jnp.sqrt(variance) + _MIN_CONTRAST),
            jnp.log(jnp.sqrt(slope) + _MIN_SHARPNESS),
        ],
        -1,
    )


def _cells(x: Array, size: int) -> Array:
    """Reshapes [N, h, w, C] -> [N, h/size, size, w/size, size, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // size, size, width // size, size, channels)
