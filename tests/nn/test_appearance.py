"""The appearance of cells, against its definition in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.nn.appearance import CELL, CHANNELS, appearance
from dmnet_jax.nn.mobilenet import normalize, unit_range

FRAMES = np.random.default_rng(0).random((2, 32, 64, 3), np.float32)


def cells(frames):
    """Yields the position and the pixels of each cell."""
    for n, y, x in np.ndindex(len(frames), 32 // CELL, 64 // CELL):
        yield (n, y, x), frames[n, CELL * y :, CELL * x :][:CELL, :CELL]


def test_brightness_and_contrast_are_those_of_the_cell():
    result = appearance(FRAMES)
    assert result.shape == (2, 2, 4, CHANNELS) and result.dtype == jnp.float32
    for position, pixels in cells(FRAMES):
        mean, gray = pixels.mean((0, 1)), pixels.mean(-1)
        np.testing.assert_allclose(
            result[position][:4],
            np.log([*(mean + 0.02), gray.std() + 0.02]),
            atol=1e-4,
        )


def test_sharpness_is_the_gradient_at_half_size():
    gray = FRAMES.mean(-1)
    half = gray.reshape(2, 16, 2, 32, 2).mean((2, 4))
    right = np.concatenate([half[:, :, 1:], half[:, :, -1:]], 2)
    below = np.concatenate([half[:, 1:], half[:, -1:]], 1)
    slope = (right - half) ** 2 + (below - half) ** 2
    slope = slope.reshape(2, 2, 8, 4, 8).mean((2, 4))
    expected = np.log(np.sqrt(slope) + 0.01)
    np.testing.assert_allclose(appearance(FRAMES)[..., 4], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("disturb", "channels"),
    [
        (lambda x: 0.5 * x, (0, 1, 2, 3, 4)),
        (lambda x: x * np.float32([1, 0.5, 0.5]), (1, 2)),
        (lambda x: x.mean((1, 2), keepdims=True) + 0.1 * (x - x.mean()), (3, 4)),
    ],
)
def test_disturbances_lower_their_channels(disturb, channels):
    change = appearance(np.float32(disturb(FRAMES))) - appearance(FRAMES)
    assert (change[..., channels] < -0.2).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_uniform_frames_are_finite(value):
    assert np.isfinite(appearance(np.full((1, 32, 32, 3), value, np.float32))).all()


@pytest.mark.parametrize("encoder", ["keras", "torch"])
def test_it_does_not_depend_on_the_normalization(encoder):
    frames = np.uint8(255 * FRAMES)
    result = appearance(unit_range(normalize(frames, encoder), encoder))
    np.testing.assert_allclose(result, appearance(np.float32(frames) / 255), atol=1e-4)
