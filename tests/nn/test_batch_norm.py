"""Batch norm compared with Flax: one and several devices, dtypes, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax.nn._cpu import sums
from dmnet_jax.nn.batch_norm import BatchNorm


@pytest.fixture(params=[0, sums.SMALL], ids=["row by row", "at once"])
def small(request, monkeypatch):
    monkeypatch.setattr(sums, "SMALL", request.param)


def inputs(shape=(4, 6, 5, 7), seed=0):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(2, 3, (2, *shape)).astype("float32")
    variables = {
        "params": {
            "scale": rng.uniform(0.5, 2, shape[-1]).astype("float32"),
            "bias": rng.normal(size=shape[-1]).astype("float32"),
        },
        "batch_stats": {
            "mean": rng.normal(size=shape[-1]).astype("float32"),
            "var": rng.uniform(0.5, 2, shape[-1]).astype("float32"),
        },
    }
    return variables, x, g


def results(layer, variables, x, g):
    """Output, new statistics, gradients of <output, g> to parameters and x."""

    def loss(params, x):
        y, new = layer.apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return (y * g).sum(), (y, new["batch_stats"])

    gradients, (y, stats) = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)
    return {"y": y, "stats": stats, "params": gradients[0], "x": gradients[1]}


def pair(**settings):
    settings = {"momentum": 0.9, "epsilon": 1e-3, **settings}
    return BatchNorm(**settings), nn.BatchNorm(**settings)


def assert_close(ours, theirs, rtol=2e-5, atol=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.float32(a), np.float32(b), rtol=rtol, atol=atol
        ),
        ours,
        theirs,
    )


@pytest.mark.parametrize("shape", [(4, 6, 5, 7), (1, 1, 3, 2), (2, 3, 1, 4)])
def test_training_equals_flax(small, shape):
    variables, x, g = inputs(shape)
    ours, theirs = pair(use_running_average=False)
    assert_close(
        jax.jit(lambda *a: results(ours, *a))(variables, x, g),
        results(theirs, variables, x, g),
        atol=1e-4,
    )


def test_evaluation_equals_flax_and_keeps_statistics():
    variables, x, g = inputs()
    ours, theirs = pair(use_running_average=True)
    actual = results(ours, variables, x, g)
    assert_close(actual, results(theirs, variables, x, g))
    jax.tree.map(
        np.testing.assert_array_equal, actual["stats"], variables["batch_stats"]
    )


def test_devices_share_statistics_and_gradients(small):
    """Four devices with a quarter of the batch equal one; parameter gradients sum."""
    variables, x, g = inputs((8, 6, 5, 7))
    alone = results(pair(use_running_average=False)[0], variables, x, g)
    shared = BatchNorm(use_running_average=False, epsilon=1e-3, axis_name="devices")
    parts = [a.reshape(4, 2, *a.shape[1:]) for a in (x, g)]
    actual = jax.pmap(
        lambda x, g: results(shared, variables, x, g), axis_name="devices"
    )(*parts)
    assert_close(actual["y"].reshape(x.shape), alone["y"])
    assert_close(actual["x"].reshape(x.shape), alone["x"])
    assert_close(jax.tree.map(lambda a: a[1], actual["stats"]), alone["stats"])
    assert_close(
        jax.tree.map(lambda a: a.sum(0), actual["params"]), alone["params"], atol=1e-3
    )


def test_half_precision_keeps_statistics_in_float32():
    variables, x, g = inputs((4, 32, 32, 3))
    x = jnp.asarray(x + 100, jnp.bfloat16)  # x * x has no digits left in bfloat16
    ours, theirs = pair(use_running_average=False, dtype=jnp.bfloat16)
    actual, expected = (results(n, variables, x, g) for n in (ours, theirs))
    assert actual["y"].dtype == jnp.bfloat16 and actual["x"].dtype == jnp.bfloat16
    assert actual["stats"]["var"].dtype == jnp.float32
    assert_close(actual["stats"], expected["stats"], rtol=1e-4, atol=1e-4)
    assert_close(actual["y"], expected["y"], rtol=2e-2, atol=2e-2)


def test_initial_variables_equal_flax():
    x = jnp.zeros((2, 3, 3, 5))
    ours, theirs = pair(use_running_average=False, axis_name="devices")
    actual, expected = (n.init(jax.random.key(0), x) for n in (ours, theirs))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
