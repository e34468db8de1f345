"""Batch-norm statistics move toward those of the given frames, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.models.adaptation import BATCH, BATCHES, FRAMES, adapt
from dmnet_jax.models.dmnet import TINY, DMNet
from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.ternausnet import TernausNet
from tests.support.random_variables import random_variables
from tests.support.tiny_run import picture

SIZE = (64, 64)
IMAGES = np.stack([picture(index, SIZE, seed=index)[0] for index in range(FRAMES)])


def with_variables(model):
    key = jax.random.key(0)
    frames = jax.ShapeDtypeStruct((1, 1, *SIZE, 3), jnp.uint8)
    memory = jax.eval_shape(lambda: model.init_memory(1, SIZE, key))
    return model, random_variables(jax.eval_shape(model.init, key, memory, frames))


@pytest.fixture(scope="module")
def network():
    return with_variables(DMNet(num_classes=3, **TINY))


def stem_moments(kernel, frames):
    """Mean and variance of the first convolution's output, by channel."""
    padded = np.pad(frames / 127.5 - 1, ((0, 0), (0, 1), (0, 1), (0, 0)))
    rows, columns = (side // 2 for side in SIZE)
    output = sum(
        padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    return output.mean((0, 1, 2)), output.var((0, 1, 2))


def test_every_batch_moves_the_statistics_by_a_tenth(network):
    model, variables = network
    name = "stem_norm"
    expected = dict(variables["batch_stats"]["backbone"][name])
    kernel = np.asarray(variables["params"]["backbone"]["stem"]["kernel"], np.float64)
    for start in range(BATCHES):
        mean, var = stem_moments(kernel, IMAGES[start::BATCHES])
        expected["mean"] = 0.9 * expected["mean"] + 0.1 * mean
        expected["var"] = 0.9 * expected["var"] + 0.1 * var
    adapted = adapt(model, variables, IMAGES)["batch_stats"]["backbone"][name]
    for moment in ("mean", "var"):
        np.testing.assert_allclose(adapted[moment], expected[moment], rtol=1e-4)


def test_only_statistics_change(network):
    model, variables = network
    adapted = adapt(model, variables, IMAGES)
    assert adapted.keys() == variables.keys()
    for name in variables:
        same = jax.tree.map(np.array_equal, adapted[name], variables[name])
        assert any(jax.tree.leaves(same)) != (name == "batch_stats"), name
        assert all(jax.tree.leaves(same)) != (name == "batch_stats"), name


def test_statistics_converge_to_those_of_the_frames(network):
    model, variables = network
    same = np.repeat(IMAGES[:BATCH], BATCHES, axis=0)
    for _ in range(70):  # 0.9 ** 140 is 4e-7
        variables = adapt(model, variables, same)
    inputs = variables, IMAGES[:BATCH]
    running = model.apply(*inputs, method="encode")
    batch, _ = model.apply(*inputs, train=True, method="encode", mutable="batch_stats")
    for a, b in zip(jax.tree.leaves(running), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_compared_networks_adapt():
    model, variables = with_variables(
        LinkNet(num_classes=3, blocks=(1, 1, 1, 1), width=8)
    )
    before = variables["batch_stats"]
    after = adapt(model, variables, IMAGES)["batch_stats"]
    same = jax.tree.map(np.array_equal, after, before)
    assert not any(jax.tree.leaves(same))


def test_a_network_without_batch_norm_is_refused():
    model = TernausNet(num_classes=3, layers=11, width=8)
    with pytest.raises(ValueError, match="no batch norm"):
        adapt(model, {"params": {}, "batch_stats": {}}, IMAGES)


@pytest.mark.parametrize(
    "frames", [IMAGES[:-1], IMAGES.astype(np.float32), IMAGES[0], IMAGES[..., 0]]
)
def test_other_shapes_are_refused(network, frames):
    with pytest.raises(ValueError, match=r"must be uint8 \[16, H, W, 3\]"):
        adapt(*network, frames)
