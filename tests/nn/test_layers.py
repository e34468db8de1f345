"""Values and gradients of the fast layers, compared with the plain operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dmnet_jax.nn import layers, pooling, resizing
from dmnet_jax.nn.operators import Window, depthwise_3x3

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def plain_conv(x, kernel, stride, pads, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
        precision="highest",
    )


def assert_same_function(f, g, *inputs, tolerance=1e-4):
    """Equal values, and equal gradients under a random cotangent."""

    @jax.jit
    def both(*inputs):
        (y, pull), (z, pull_plain) = jax.vjp(f, *inputs), jax.vjp(g, *inputs)
        cotangent = jnp.asarray(normal(99, *y.shape))
        return y, z, pull(cotangent), pull_plain(cotangent)

    y, z, ours, plain = both(*inputs)
    np.testing.assert_allclose(y, z, rtol=tolerance, atol=tolerance)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1.0))


@pytest.mark.parametrize(
    ("features", "stride", "padding", "size", "pads"),
    [
        (8, 1, "torch", (7, 9), [(1, 1), (1, 1)]),
        (8, 1, "keras", (6, 4), [(1, 1), (1, 1)]),
        (48, 1, "torch", (6, 5), [(1, 1), (1, 1)]),
        (8, 2, "torch", (8, 7), [(1, 1), (1, 1)]),
        (8, 2, "keras", (8, 7), [(0, 1), (1, 1)]),
    ],
)
def test_conv_3x3_equals_the_plain_convolution(features, stride, padding, size, pads):
    module = layers.Conv3x3(features, stride, use_bias=True, padding=padding)
    assert_same_function(
        lambda x, k, b: module.apply({"params": {"kernel": k, "bias": b}}, x),
        lambda x, k, b: plain_conv(x, k, stride, pads) + b,
        normal(0, 2, *size, 5),
        normal(1, 3, 3, 5, features),
        normal(2, features),
    )


@pytest.mark.parametrize("padding", ["torch", "keras"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_equals_the_grouped_convolution(padding, size, stride):
    module = layers.Depthwise3x3(stride, padding=padding)
    x, kernel = normal(0, 2, *size, 6), normal(1, 3, 3, 1, 6)
    pads = [layers.pad_3x3(n, stride, padding) for n in size]
    assert_same_function(
        lambda x, k: module.apply({"params": {"kernel": k}}, x),
        lambda x, k: plain_conv(x, k, stride, pads, groups=6),
        x,
        kernel,
    )


def test_keras_padding_equals_xla_same_padding():
    for size in (7, 8):
        x, kernel = normal(0, 1, size, size, 3), normal(1, 3, 3, 3, 40)
        module = layers.Conv3x3(40, 2, padding="keras")
        np.testing.assert_allclose(
            module.apply({"params": {"kernel": kernel}}, x),
            plain_conv(x, kernel, 2, "SAME"),
            atol=1e-4,
        )


def test_dense_1x1_equals_a_matrix_product():
    module = layers.Dense1x1(4, use_bias=True)
    x, kernel, bias = normal(0, 3, 4, 5, 6), normal(1, 1, 1, 6, 4), normal(2, 4)
    assert_same_function(
        lambda x, k, b: module.apply({"params": {"kernel": k, "bias": b}}, x),
        lambda x, k, b: jnp.einsum("bhwi,io->bhwo", x, k[0, 0]) + b,
        x,
        kernel,
        bias,
    )


def first_maximum_gradient(x, gradient, axis):
    """The gradient by a loop: each output passes it to its window's first maximum."""
    x, gradient = (np.moveaxis(np.asarray(a), axis, 0) for a in (x, gradient))
    result = np.zeros_like(x)
    for i in range(len(x)):
        low = max(0, i - 2)
        window = x[low : i + 3]
        first = window.argmax(0)
        for k in range(len(window)):
            result[low + k] += np.where(first == k, gradient[i], 0)
    return np.moveaxis(result, 0, axis)


def test_max_pool_values_and_gradient_with_ties():
    x = np.clip(np.round(3 * normal(0, 2, 9, 8, 3)), 0, 6)  # many ties
    gradient = normal(1, *x.shape)

    @jax.jit
    def run(x, gradient):
        pooled, pull = jax.vjp(pooling.max_pool_5x5, x)
        pads = ((0, 0), (2, 2), (2, 2), (0, 0))
        plain = lax.reduce_window(x, -jnp.inf, lax.max, (1, 5, 5, 1), (1,) * 4, pads)
        return pooled, plain, pull(gradient)[0]

    pooled, plain, actual = run(x, gradient)
    np.testing.assert_array_equal(pooled, plain)
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)), constant_values=-np.inf)
    rows = np.max([padded[:, k : k + x.shape[1]] for k in range(5)], axis=0)
    expected = first_maximum_gradient(rows, gradient, 2)
    expected = first_maximum_gradient(x, expected, 1)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (8, 5)])
def test_upsample_is_aligned_corner_interpolation(size):
    x = normal(0, 2, *size, 3)

    def matrix(n):
        weights = np.zeros((2 * n, n))
        for i in range(2 * n):
            position = i * (n - 1) / (2 * n - 1)
            low = min(int(position), n - 1)
            high = min(low + 1, n - 1)
            weights[i, low] += 1 - (position - low)
            weights[i, high] += position - low
        return weights

    expected = np.einsum("ip,jq,bpqc->bijc", matrix(size[0]), matrix(size[1]), x)
    np.testing.assert_allclose(jax.jit(resizing.upsample_2x)(x), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (50, 20)])
def test_resized_argmax_equals_argmax_of_resized_logits(size):
    logits = jax.random.normal(jax.random.key(0), (2, 16, 24, 5))
    resized = resizing.resize(logits, size)
    best = jnp.sort(resized, -1)
    clear = best[..., -1] - best[..., -2] > 1e-5
    label = jax.jit(resizing.resized_argmax, static_argnums=1)(logits, size)
    assert label.dtype == jnp.uint8 and label.shape == (2, *size)
    assert clear.mean() > 0.99
    assert (label == resized.argmax(-1))[clear].all()


@pytest.mark.parametrize(
    "module", [layers.Dense1x1(8), layers.Conv3x3(8), layers.Depthwise3x3()]
)
def test_bfloat16_is_near_float32(module):
    x = normal(0, 1, 6, 6, 4)
    rounding = module.clone(dtype=jnp.bfloat16)

    @jax.jit
    def run(x):
        variables = module.init(jax.random.key(1), x)
        return module.apply(variables, x), rounding.apply(variables, x)

    exact, rounded = run(x)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.05)


def test_pooling_and_upsampling_keep_bfloat16():
    x = jnp.asarray(normal(0, 1, 6, 6, 4), jnp.bfloat16)
    pool, upsample = jax.jit(pooling.max_pool_5x5), jax.jit(resizing.upsample_2x)
    assert pool(x).dtype == upsample(x).dtype == jnp.bfloat16
    exact = x.astype(jnp.float32)
    np.testing.assert_array_equal(pool(x).astype(jnp.float32), pool(exact))
    np.testing.assert_allclose(
        upsample(x).astype(jnp.float32), upsample(exact), atol=0.05
    )


def test_depthwise_gradient_in_bfloat16_accumulates_in_float32():
    """A bfloat16 sum of 4096 ones would stop growing at 256."""
    x = jnp.ones((1, 64, 64, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 1, 2), jnp.bfloat16)

    @jax.jit
    def gradient(kernel):
        window = Window(((1, 1), (1, 1)))
        return jax.grad(lambda k: depthwise_3x3(x, k, window).sum())(kernel)

    actual = gradient(kernel)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual[1, 1, 0].astype(jnp.float32), 4096)
