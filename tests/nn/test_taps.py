"""The convolution of the project against XLA's own."""

import pytest
from jax import lax

from dmnet_jax.nn.taps import DIMENSIONS, convolve
from tests.nn.test_layers import assert_same_function, normal


@pytest.mark.parametrize(
    ("taps", "stride", "pads", "dilation"),
    [
        ((1, 1), 2, ((0, 0), (0, 0)), 1),
        ((2, 2), 1, ((1, 1), (1, 1)), 1),
        ((3, 3), 1, ((4, 4), (4, 4)), 4),
        ((3, 2), 2, ((0, 1), (2, 0)), 2),
        ((7, 7), 2, ((3, 3), (3, 3)), 1),
    ],
)
def test_a_convolution_has_the_plain_ones_gradient(taps, stride, pads, dilation):
    def plain(x, kernel):
        return lax.conv_general_dilated(
            *(x, kernel, (stride, stride), pads),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=DIMENSIONS,
        )

    assert_same_function(
        lambda x, kernel: convolve(x, kernel, stride, pads, dilation),
        plain,
        normal(0, 2, 9, 8, 5),
        normal(1, *taps, 5, 4),
    )
