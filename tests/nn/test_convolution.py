"""Layers compared with their definitions, written as loops or plain operators."""

import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax.nn.convolution import Deconv
from dmnet_jax.nn.layers import Conv3x3
from dmnet_jax.nn.pooling import max_pool_2x2, max_pool_3x3
from dmnet_jax.nn.pyramid import average, interpolation

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("size", "padding"), [(4, 1), (3, 0)])
def test_deconv_equals_a_loop_over_inputs(size, padding):
    x, kernel, bias = normal(2, 3, 4, 5), normal(size, size, 5, 6), normal(6)
    layer = Deconv(6, size, padding)
    actual = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    height, width = (2 * (n - 1) + size for n in x.shape[1:3])
    full = np.zeros((2, height, width, 6))
    for row, column in np.ndindex(x.shape[1:3]):
        spread = np.einsum("bc,ijcd->bijd", x[:, row, column], kernel)
        full[:, 2 * row : 2 * row + size, 2 * column : 2 * column + size] += spread
    cut = slice(padding, -padding or None)
    np.testing.assert_allclose(actual, full[:, cut, cut] + bias, atol=1e-5)


def test_pooling_returns_window_maxima():
    x = normal(2, 6, 8, 3)
    whole = ((0, 0), (0, 0))
    expected = nn.max_pool(x, (2, 2), (2, 2), whole)
    np.testing.assert_array_equal(max_pool_2x2(x), expected)
    expected = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(max_pool_3x3(x), expected)


def test_dilated_convolution_samples_every_other_pixel():
    x, kernel = normal(1, 8, 8, 2), normal(3, 3, 2, 4)
    wide = Conv3x3(4, dilation=2).apply({"params": {"kernel": kernel}}, x)
    near = Conv3x3(4).apply({"params": {"kernel": kernel}}, x[:, ::2, 1::2])
    np.testing.assert_allclose(wide[:, ::2, 1::2], near, atol=1e-5)


def test_pyramid_bins_may_overlap_and_corners_are_aligned():
    np.testing.assert_allclose(
        average(5, 3),
        [[0.5, 0.5, 0, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3, 0]] + [[0, 0, 0, 0.5, 0.5]],
        atol=1e-7,
    )
    actual = interpolation(2, 4)
    np.testing.assert_allclose(actual[:, 1], [0, 1 / 3, 2 / 3, 1], atol=1e-7)
    np.testing.assert_array_equal(interpolation(1, 3), np.ones((3, 1)))
    assert np.allclose(actual.sum(1), 1)
