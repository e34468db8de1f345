"""How unusual a frame looks, against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.nn.looks import (
    MAX_SURPRISE,
    MIN_VARIATION,
    PACE,
    SCENE_PACE,
    init_looks,
    remember,
    unusual,
)
from tests.support.random_variables import quick_jit

SIZE, NOISE = (96, 112), np.array(MIN_VARIATION)
RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(4, 2, 6, 7, 5)).astype(np.float32)
TRUST = RNG.random((4, 2, 6, 7, 1), np.float32)
ELAPSED = 1 + 9 * RNG.random((4, 2, 6, 7, 1), np.float32)
ACTIVE = jnp.ones(2, bool)


def empty():
    return jax.tree.map(lambda x: jnp.stack([x, x]), init_looks(SIZE))


def seen(count):
    """Returns the looks after some frames."""
    looks, update = empty(), quick_jit(remember)
    for frame, trust, elapsed in zip(FRAMES, TRUST, ELAPSED, strict=True):
        if count:
            looks = update(looks, frame, trust, elapsed, ACTIVE)
        count -= bool(count)
    return looks


def test_what_is_remembered_follows_its_equations():
    recent = scene = FRAMES[0]
    variation, differences = np.zeros((2, 1, 1, 5)), np.zeros((2, 2, 1, 5))
    for t in range(1, 4):
        pace = TRUST[t] * (1 - np.exp(-ELAPSED[t] / PACE))
        surprise = np.abs(FRAMES[t] - recent).mean((1, 2), keepdims=True)
        surprise = np.minimum(surprise, MAX_SURPRISE * (variation + NOISE))
        variation = variation + pace.mean((1, 2), keepdims=True) * (
            surprise - variation
        )
        recent = recent + pace * (FRAMES[t] - recent)
        slow = TRUST[t] * (1 - np.exp(-ELAPSED[t] / SCENE_PACE))
        scene = scene + slow * (FRAMES[t] - scene)
        last = np.abs(FRAMES[t] - FRAMES[t - 1]).mean((1, 2))[:, None]
        differences = np.stack([last, differences[:, 0]], 1)
        looks = seen(t + 1)
        np.testing.assert_allclose(looks.recent.value, recent, atol=1e-5)
        np.testing.assert_allclose(looks.scene.value, scene, atol=1e-5)
        np.testing.assert_allclose(looks.variation.value, variation, atol=1e-5)
        np.testing.assert_allclose(looks.previous.value, FRAMES[t], atol=1e-6)
        np.testing.assert_allclose(looks.differences.value, differences, atol=1e-5)
        assert looks.scene.count.tolist() == [t + 1] * 2


@pytest.mark.parametrize("count", [2, 3])
def test_a_change_is_relative_to_the_usual_one(count):
    """After two frames, the differences of three frames are not known yet."""
    looks, frame, growth = seen(count), FRAMES[3], 1 + TRUST[0]
    change = np.minimum(
        np.abs(frame - looks.recent.value), np.abs(frame - looks.scene.value)
    )
    usual = np.asarray(looks.variation.value) + NOISE
    if count == 3:
        before = [
            np.abs(a - b).mean((1, 2), keepdims=True)
            for a, b in zip(FRAMES[1:], FRAMES[:-1], strict=True)
        ]
        lasting = np.min(before, 0)
        assert (lasting > usual).any() or (before[0] < usual).any()
        usual = np.maximum(usual, lasting)
    cells = np.log((1 + change / usual / growth) / 2)
    window = np.empty_like(cells)
    for y, x in np.ndindex(6, 7):
        near = cells[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        window[:, y, x] = near.mean((1, 2))
    frame_mean = np.broadcast_to(cells.mean((1, 2), keepdims=True), cells.shape)
    result = quick_jit(unusual)(looks, frame, growth)
    for got, want in zip(result, (cells, window, frame_mean), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)


def test_videos_without_a_frame_keep_their_looks():
    looks = seen(2)
    active = jnp.array([False, True])
    after = quick_jit(remember)(looks, FRAMES[2], TRUST[2], ELAPSED[2], active)
    for old, new in zip(jax.tree.leaves(looks), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(new[0], old[0])
        assert (new[1] != old[1]).any()
