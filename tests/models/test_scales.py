"""A frame segmented at several sizes: the mean of what each size predicts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.models.scales import at_scales, rescaled_size
from dmnet_jax.nn import mobilenet
from dmnet_jax.nn.resizing import resized_argmax
from dmnet_jax.streaming import compile
from tests.support.random_variables import random_variables

SIZE, SCALES = (64, 128), (0.5, 1.5)
KEY = jax.random.key(0)
SINGLE = DMNet.tiny(num_classes=3, local="none", global_memory=False)
# The memories of the shipped network.
MEMORIES = SINGLE.clone(
    global_memory=True, global_values="masks", key_channels=8, global_size=2, state=True
)


@pytest.fixture(scope="module")
def variables():
    frame = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.uint8)
    memory = MEMORIES.init_memory(1, SIZE, KEY)
    init = partial(MEMORIES.init, method=DMNet.step)
    return random_variables(jax.eval_shape(init, KEY, memory, frame))


@pytest.fixture(scope="module")
def frames():
    shape = (1, 4, *SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def roll(model, variables, frames):
    size = frames.shape[2], frames.shape[3]
    run = jax.jit(model.apply)
    return run(variables, model.init_memory(1, size, KEY), frames)[1]


def test_the_prediction_is_the_mean_of_those_of_the_single_sizes(variables, frames):
    output = roll(at_scales(SINGLE, SCALES), variables, frames)
    x = mobilenet.normalize(jnp.asarray(frames), "keras")
    expected = []
    for height, width in (SIZE, (32, 64), (96, 192)):
        resized = jax.image.resize(x, (1, 4, height, width, 3), "linear")
        probabilities = jax.nn.softmax(roll(SINGLE, variables, resized).logits)
        quarter = (1, 4, SIZE[0] // 4, SIZE[1] // 4, 3)
        expected.append(jax.image.resize(probabilities, quarter, "linear", False))
    assert np.abs(np.diff(expected, axis=0)).mean() > 0.01
    np.testing.assert_allclose(
        jax.nn.softmax(output.logits), np.mean(expected, 0), rtol=1e-3, atol=2e-4
    )


def test_the_same_size_again_changes_nothing(variables, frames):
    once = roll(MEMORIES, variables, frames)
    twice = roll(at_scales(MEMORIES, (1.0,)), variables, frames)
    np.testing.assert_allclose(
        jax.nn.softmax(once.logits), jax.nn.softmax(twice.logits), rtol=1e-3, atol=2e-4
    )
    np.testing.assert_array_equal(once.admitted, twice.admitted)


def test_the_memory_receives_the_mean(variables, frames):
    """The first frame is trusted, so the state is then what was predicted for it."""
    still, state = frames[:, :1], SINGLE.clone(state=True, scales=SCALES)
    empty = state.init_memory(1, SIZE, KEY)
    memory, output = jax.jit(state.apply)(variables, empty, still)
    mean = jax.nn.softmax(output.logits[:, 0])
    np.testing.assert_allclose(memory.state.probabilities.value, mean, atol=1e-5)
    assert len(np.unique(np.round(mean, 3))) > 100  # not a constant


def test_a_stream_has_the_labels_of_a_whole_video(variables, frames):
    model = at_scales(MEMORIES, SCALES)
    program = compile(model, variables, size=SIZE)
    memory = program.init_memory(KEY)
    whole = roll(model, variables, frames)
    for index in range(frames.shape[1]):
        memory, labeled = program.step(memory, frames[:, index])
        expected = resized_argmax(whole.logits[:, index], SIZE)
        assert (np.asarray(labeled.labels) != np.asarray(expected)).mean() < 2e-3
        assert bool(labeled.admitted[0]) == bool(whole.admitted[0, index])


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.25, 4))
def test_a_rescaled_size_is_the_nearest_multiple_of_32(rows, columns, scale):
    size = 32 * rows, 32 * columns
    for side, rescaled in zip(size, rescaled_size(size, scale), strict=True):
        assert rescaled % 32 == 0 and rescaled >= 32
        assert abs(rescaled - side * scale) <= 16 or rescaled == 32


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.2, 5.0, float("nan")])
def test_an_invalid_scale_is_named(scale):
    with pytest.raises(ValueError, match=f"scales: {scale:g} is not from 0.25 to 4"):
        at_scales(SINGLE, (1.5, scale))


@pytest.mark.parametrize("model", [DMNet.tiny(3), LWANet(3)])
def test_networks_whose_memory_is_decoded_and_other_networks_are_refused(model):
    with pytest.raises(ValueError, match="scales need a DMNet whose memories only"):
        at_scales(model, SCALES)
    single = DMNet.tiny(3).single_frame()
    assert at_scales(single, SCALES).scales == SCALES
