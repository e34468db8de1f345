"""Sequences with active admission equal a stream; their gradients are truncated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.models import forward
from dmnet_jax.models.features import FEATURES
from tests.support.random_variables import quick_jit
from tests.support.tiny_run import network, picture, shallow

T, KEY = 4, jax.random.key(0)


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


@pytest.fixture(scope="module")
def setup():
    """Model, variables that admit every frame, an empty memory, frames in [-1, 1]."""
    model, variables = network()
    everything = {
        "min_confidence": jnp.float32(-jnp.inf),
        "max_similarity": jnp.float32(jnp.inf),
    }
    images = [[picture(t, (32, 32), seed)[0] for t in range(T)] for seed in (0, 1)]
    frames = jnp.asarray(np.array(images), jnp.float32) / 127.5 - 1
    memory = model.init_memory(2, (32, 32), KEY, global_size=T)
    return model, {**variables, "thresholds": everything}, memory, frames


@pytest.fixture(scope="module")
def rollout(setup):
    model, variables, memory, _ = setup
    return jax.jit(partial(rolled, model, variables))


def rolled(model, variables, frames, mask):
    batch = {"frames": frames, "frames_mask": mask}
    return model.apply(variables, batch, KEY, method=forward.rollout, truncate=2)


def test_rollout_equals_stream(setup, rollout):
    model, variables, memory, frames = setup
    output = rollout(frames, np.ones((2, T), bool))
    _, streamed = jax.jit(model.apply)(variables, memory, frames)
    assert output.logits.shape == streamed.logits.shape
    np.testing.assert_allclose(output.logits, streamed.logits, atol=1e-5)
    np.testing.assert_array_equal(output.admitted, streamed.admitted)
    np.testing.assert_allclose(output.similarity, streamed.similarity, rtol=1e-4)


def test_padding_before_a_video_has_no_effect(setup, rollout):
    frames = setup[-1]
    mask = np.ones((2, T), bool)
    mask[0, :2] = False
    output = rollout(frames, mask)
    noise = frames.at[0, :2].set(0.3)
    again = rollout(noise, mask)
    np.testing.assert_array_equal(output.logits[0, 2:], again.logits[0, 2:])
    assert output.similarity[0, 2] == -np.inf


def test_gradients_do_not_cross_truncation_boundaries(setup):
    model, variables, memory, frames = setup

    def loss(frames, scored):
        output = rolled(model, variables, frames, np.ones((2, T), bool))
        return jnp.square(jnp.take(output.logits, scored, axis=1)).mean()

    gradient = quick_jit(jax.grad(loss))
    reached = np.abs(gradient(frames, 3)).max((0, 2, 3, 4)) > 0
    np.testing.assert_array_equal(reached, [False, False, True, True])
    reached = np.abs(gradient(frames, 2)).max((0, 2, 3, 4)) > 0
    np.testing.assert_array_equal(reached, [False, False, True, False])


def test_encoded_sequence_equals_rollout(setup, rollout):
    model, variables, _, frames = setup
    mask = np.ones((2, T), bool)
    mask[1, 0] = False

    @jax.jit
    def encoded(frames):
        features = model.apply(
            variables, frames.reshape(-1, 32, 32, 3), method="encode"
        )
        maps = {name: getattr(features, name) for name in FEATURES}
        return {name: x.reshape(2, T, *x.shape[1:]) for name, x in maps.items()}

    batch = {**encoded(frames), "frames_mask": mask}
    output = jax.jit(partial(model.apply, method=forward.sequences))(
        variables, batch, KEY
    )
    expected = rollout(frames, mask)
    for row, t in zip(*np.nonzero(mask), strict=True):
        here, target = output.logits[row, t], expected.logits[row, t]
        np.testing.assert_allclose(here, target, atol=1e-5)
        assert output.admitted[row, t] == expected.admitted[row, t]
