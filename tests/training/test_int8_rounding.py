"""Rounding to 8 bits in training: levels, scales, gradients, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.models.forward import clip
from dmnet_jax.nn.layers import Dense1x1
from dmnet_jax.training import forward_loss
from dmnet_jax.training.int8_rounding import round_inputs, round_kernels
from tests.support import tiny_run


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (3, 3, 1, 6), (1, 1, 7, 2)])
def test_kernels_have_255_levels_per_channel(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel *= np.geomspace(1e-3, 1e3, shape[-1], dtype=np.float32)
    params = {"layer": {"kernel": kernel, "bias": kernel[0, 0, 0]}}
    result = round_kernels(params)["layer"]
    np.testing.assert_array_equal(result["bias"], kernel[0, 0, 0])
    for channel in range(shape[-1]):
        given, rounded = (
            kernel[..., channel],
            np.asarray(result["kernel"][..., channel]),
        )
        step = np.abs(given).max() / 127
        np.testing.assert_allclose(rounded / step, np.round(rounded / step), atol=1e-3)
        assert np.abs(rounded - given).max() <= 0.5001 * step
        assert np.abs(rounded).max() == pytest.approx(np.abs(given).max())


def test_rounding_commutes_with_the_scale_of_a_channel():
    """So a batch norm can be folded into a kernel before or after it is rounded."""
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 5))
    scale = jnp.array([0.1, -2.0, 3.0, 1e-2, 7.0])
    once = round_kernels({"a": {"kernel": kernel * scale}})["a"]["kernel"]
    again = round_kernels({"a": {"kernel": kernel}})["a"]["kernel"] * scale
    np.testing.assert_allclose(once, again, rtol=1e-4, atol=1e-5)


def identity(x, **options):
    """Applies a layer whose kernel is the identity: the output is the rounded input."""
    kernel = jnp.eye(x.shape[-1])[None, None]
    layer = Dense1x1(x.shape[-1], **options)
    with round_inputs():
        return layer.apply({"params": {"kernel": kernel}}, x)


@pytest.mark.parametrize(("low", "levels"), [(0.0, 255), (-1.0, 127)])
def test_inputs_of_layers_are_rounded(low, levels):
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 3), minval=low, maxval=4.0)
    rounded, step = np.asarray(identity(x)), np.abs(x).max() / levels
    np.testing.assert_allclose(rounded / step, np.round(x / step), atol=1e-3)
    assert (rounded != x).any()
    np.testing.assert_array_equal(identity(jnp.zeros_like(x)), 0)


def test_nothing_is_rounded_outside_the_context():
    x = jax.random.uniform(jax.random.key(0), (1, 2, 2, 3))
    kernel = jnp.eye(3)[None, None]
    plain = Dense1x1(3).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(plain, x)


def test_gradients_pass_through_unchanged():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    weight = jax.random.normal(jax.random.key(1), x.shape)
    gradient = jax.grad(lambda x: (identity(x) * weight).sum())(x)
    np.testing.assert_allclose(gradient, weight, rtol=1e-6)
    gradient = jax.grad(
        lambda k: (round_kernels({"a": {"kernel": k}})["a"]["kernel"] * weight).sum()
    )(x)
    np.testing.assert_allclose(gradient, weight, rtol=1e-6)


def test_the_loss_is_that_of_the_rounded_network():
    with tiny_run.shallow():
        model, variables = tiny_run.network()
        model, optim = model.single_frame(), tiny_run.tiny_config().optim
        batch, key = tiny_run.clips(), jax.random.key(0)

        def loss(variables, aware):
            return forward_loss(
                *(variables, batch, key),
                model=model,
                forward=clip,
                optim=optim,
                quantization_aware=aware,
            )[0]

        kernels_only = {**variables, "params": round_kernels(variables["params"])}
        with round_inputs():
            expected = jax.jit(lambda v: loss(v, False))(kernels_only)
        aware, plain = jax.jit(lambda v: (loss(v, True), loss(v, False)))(variables)
        assert float(aware) == pytest.approx(float(expected), rel=1e-4)
        # The inputs are rounded too, and rounding is not large.
        kernels = jax.jit(lambda v: loss(v, False))(kernels_only)
        assert len({float(aware), float(plain), float(kernels)}) == 3
        assert float(aware) == pytest.approx(float(plain), rel=0.05)
