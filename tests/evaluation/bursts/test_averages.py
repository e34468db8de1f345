"""Rules that combine single frames, compared with plain NumPy."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.evaluation.bursts.averages import (
    FAMILIES,
    REACH,
    TEMPERATURE,
    WINDOW,
    Seen,
    average,
    average_along,
    hold,
    hold_clean,
    local_affinity,
    move_along,
    rules,
)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def frames(n=4, size=(8, 12), places=(2, 3)):
    rng = np.random.default_rng(0)
    return [
        Seen(
            jnp.asarray(rng.normal(size=(1, *size, 3)).astype(np.float32)),
            jnp.asarray(rng.normal(size=(1, *places, 5)).astype(np.float32)),
            corrupted=t in (1, 2),
        )
        for t in range(n)
    ]


def rolled(update):
    state, result = None, []
    for frame in frames():
        state, scores = update(state, frame)
        result.append(np.asarray(scores))
    return result


def test_hold_repeats_the_previous_prediction():
    logits = [np.asarray(frame.logits) for frame in frames()]
    for result, expected in zip(rolled(hold), [0, 0, 1, 2], strict=True):
        np.testing.assert_array_equal(result, logits[expected])
    # Frames 1 and 2 are corrupted.
    for result, expected in zip(rolled(hold_clean), [0, 0, 0, 3], strict=True):
        np.testing.assert_array_equal(result, logits[expected])


def test_the_exponential_average_weighs_the_past():
    mean = None
    for frame, result in zip(
        frames(), rolled(lambda state, frame: average(0.8, state, frame)), strict=True
    ):
        now = softmax(np.asarray(frame.logits))
        mean = now if mean is None else 0.8 * mean + 0.2 * now
        np.testing.assert_allclose(result, mean, atol=1e-6)


def plain_affinity(now, before):
    """[h, w, h, w]: the weight of each previous position in each current one."""
    h, w = now.shape[:2]
    result = np.zeros((h, w, h, w))
    for y in range(h):
        for x in range(w):
            near = [
                (i, j)
                for i in range(max(0, y - WINDOW // 2), min(h, y + WINDOW // 2 + 1))
                for j in range(max(0, x - WINDOW // 2), min(w, x + WINDOW // 2 + 1))
            ]
            a = now[y, x] / np.linalg.norm(now[y, x])
            scores = [
                a @ before[i, j] / np.linalg.norm(before[i, j]) / TEMPERATURE
                - ((i - y) ** 2 + (j - x) ** 2) / (2 * REACH**2)
                for i, j in near
            ]
            for p, share in zip(near, softmax(np.array(scores)), strict=True):
                result[y, x][p] = share
    return result


@pytest.mark.parametrize("weight", [None, 0.8])
def test_affinity_average_equals_plain_loops(weight):
    mean = before = None
    update = partial(average_along, weight)
    for frame, result in zip(frames(), rolled(update), strict=True):
        probabilities = softmax(np.asarray(frame.logits[0], np.float64))
        logarithms = np.log(probabilities)
        scores = logarithms if weight is None else probabilities
        features = np.asarray(frame.features[0], np.float64)
        if mean is not None:
            affinity = plain_affinity(features, before)
            moved = np.zeros_like(mean)
            for y in range(8):
                for x in range(12):
                    inner = mean[y % 4 :: 4, x % 4 :: 4]
                    moved[y, x] = np.einsum(
                        "ij,ijc->c", affinity[y // 4, x // 4], inner
                    )
            share = weight
            if share is None:
                entropy = -(probabilities * logarithms).sum(-1, keepdims=True)
                share = entropy / np.log(3)
            scores = (1 - share) * scores + share * moved
        mean, before = scores, features
        np.testing.assert_allclose(result[0], mean, rtol=2e-3, atol=2e-3)


def test_affinity_follows_motion():
    """Predictions move with a scene that moves by one position."""
    rng = np.random.default_rng(1)
    before = jnp.asarray(rng.normal(size=(1, 12, 14, 32)), jnp.float32)
    affinity = local_affinity(jnp.roll(before, (1, 2), (1, 2)), before)
    assert affinity.shape == (1, WINDOW**2, 12, 14)
    np.testing.assert_allclose(affinity.sum(1), 1, atol=1e-5)
    # One position up, two to the left.
    best = (WINDOW // 2 - 1) * WINDOW + WINDOW // 2 - 2
    assert (affinity.argmax(1)[:, 1:, 2:] == best).all()
    one = jnp.zeros_like(affinity).at[:, best].set(1)
    values = jnp.asarray(rng.normal(size=(1, 48, 56, 2)), jnp.float32)
    moved = move_along(values, one, (12, 14))
    expected = jnp.roll(values, (4, 8), (1, 2))
    np.testing.assert_array_equal(moved[:, 4:, 8:], expected[:, 4:, 8:])


def test_past_stays_in_place_where_features_are_uniform():
    affinity = local_affinity(jnp.ones((1, 12, 14, 8)), jnp.ones((1, 12, 14, 8)))
    assert (affinity.argmax(1) == WINDOW**2 // 2).all()


def test_mismatched_sizes_are_refused():
    affinity = jnp.ones((1, WINDOW**2, 3, 4)) / WINDOW**2
    with pytest.raises(ValueError, match="must be a multiple of .* 3x4"):
        move_along(jnp.zeros((1, 8, 8, 2)), affinity, (3, 4))


def test_the_affinity_is_for_networks_with_features():
    with_features, without = ([r.name for r in rules(f)] for f in (True, False))
    assert with_features == [*without, *FAMILIES["affinity average"]]
    assert {*FAMILIES["exponential average"]} < {*without}
