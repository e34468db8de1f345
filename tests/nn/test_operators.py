"""Operators with a CPU-specific form: equal to the general one, on CPUs only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export, lax

from dmnet_jax.nn import layers, operators
from dmnet_jax.nn._cpu import sums
from dmnet_jax.nn.operators import DIMENSIONS, Window, convolve, depthwise_3x3, matmul
from tests.nn.test_layers import assert_same_function, normal


@pytest.fixture(params=["cpu", "default"])
def form(request, monkeypatch):
    """Selects one of the two forms, whatever the platform."""

    def chosen(*arrays, **forms):
        return forms[request.param](*arrays)

    monkeypatch.setattr(operators.lax, "platform_dependent", chosen)


@pytest.mark.parametrize(
    ("taps", "window"),
    [
        ((1, 1), Window(stride=2)),
        ((2, 2), Window(((1, 1), (1, 1)))),
        ((3, 3), Window(((1, 1), (1, 1)))),
        ((3, 3), Window(((4, 4), (4, 4)), dilation=4)),
        ((3, 2), Window(((0, 1), (2, 0)), 2, 2)),
        ((7, 7), Window(((3, 3), (3, 3)), 2)),
    ],
)
def test_convolution_gradient_equals_the_plain_one(form, taps, window):
    def plain(x, kernel):
        return lax.conv_general_dilated(
            *(x, kernel, (window.stride, window.stride), window.pads),
            rhs_dilation=(window.dilation, window.dilation),
            dimension_numbers=DIMENSIONS,
        )

    assert_same_function(
        lambda x, kernel: convolve(x, kernel, window),
        plain,
        normal(0, 2, 9, 8, 5),
        normal(1, *taps, 5, 4),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolution_equals_the_grouped_one(form, stride):
    def plain(x, kernel):
        return lax.conv_general_dilated(
            *(x, kernel, (stride, stride), ((1, 1), (1, 1))),
            dimension_numbers=DIMENSIONS,
            feature_group_count=6,
        )

    window = Window(((1, 1), (1, 1)), stride)
    assert_same_function(
        lambda x, kernel: depthwise_3x3(x, kernel, window),
        plain,
        normal(0, 2, 9, 8, 6),
        normal(1, 3, 3, 1, 6),
    )


def test_product_equals_einsum(form):
    assert_same_function(
        matmul,
        lambda x, kernel: jnp.einsum("bhwi,io->bhwo", x, kernel),
        normal(0, 3, 4, 5, 6),
        normal(1, 6, 4),
    )


def test_mean_over_positions(form, monkeypatch):
    monkeypatch.setattr(sums, "SMALL", 0)
    x = normal(0, 2, 5, 4, 3)
    means = jax.jit(lambda x: operators.position_means(lambda x: (x, x * x), x))(x)
    for mean, terms in zip(means, (x, x * x), strict=True):
        np.testing.assert_allclose(mean, terms.mean((0, 1, 2)), atol=1e-6)


def loss_of(layer):
    """Loss and gradient of a layer, rolled over time and mapped over videos."""

    def loss(variables, videos):
        def step(_, x):
            return None, (layer.apply(variables, x) ** 2).sum()

        return jax.vmap(lambda video: lax.scan(step, None, video)[1].sum())(
            videos
        ).sum()

    x = jnp.zeros((2, 3, 1, 8, 8, 4))
    variables = layer.init(jax.random.key(0), x[0, 0])
    return jax.jit(jax.value_and_grad(loss)), variables, x


@pytest.mark.parametrize("module", [layers.Depthwise3x3(), layers.Depthwise3x3(2)])
def test_one_trace_lowers_to_each_platforms_form(module):
    x = jnp.zeros((1, 8, 8, 4))
    variables = module.init(jax.random.key(0), x)
    call = jax.jit(module.apply)

    def text(*platforms):
        return export.export(call, platforms=platforms)(variables, x).mlir_module()

    cpu, cuda, both = text("cpu"), text("cuda"), text("cpu", "cuda")
    assert "convolution" not in cpu and cpu.count("stablehlo.multiply") == 9
    assert cuda.count("stablehlo.convolution") == 1 and "multiply" not in cuda
    assert "stablehlo.convolution" in both
    assert both.count("stablehlo.multiply") == 9 and "stablehlo.case" in both


@pytest.mark.parametrize(
    ("module", "loops"),
    [(layers.Dense1x1(4), 1), (layers.Conv3x3(40, 2), 1), (nn.Dense(4), 0)],
    ids=["dense", "convolution", "of flax"],
)
def test_one_trace_lowers_to_each_platforms_gradient(module, loops):
    """CPUs accumulate a kernel's gradient in a loop, others in one operation."""
    x = jnp.zeros((2, 8, 8, 4))
    variables = module.init(jax.random.key(0), x)
    call = jax.jit(jax.grad(lambda v, x: module.apply(v, x).sum()))

    def whiles(platform):
        exported = export.export(call, platforms=(platform,))(variables, x)
        return exported.mlir_module().count("stablehlo.while")

    assert (whiles("cpu"), whiles("cuda")) == (loops, 0)


@pytest.mark.parametrize("quick", [False, True])
def test_a_compiled_program_holds_one_form(quick):
    """Under grad, vmap and scan, with XLA's optimizations and with most of them off."""
    grad, variables, x = loss_of(layers.Depthwise3x3(use_bias=True))
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", quick)
    try:
        text = str(grad.lower(variables, x).compile().as_text())
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    assert " while(" in text
    assert " conditional(" not in text and " convolution(" not in text


def test_an_exported_program_runs_as_its_layer():
    grad, variables, x = loss_of(layers.Conv3x3(8))
    exported = export.export(grad, platforms=("cpu", "cuda"))(variables, x)
    x = normal(0, *x.shape)
    again = export.deserialize(exported.serialize()).call
    text = str(jax.jit(again).lower(variables, x).compile().as_text())
    assert " conditional(" not in text
    expected, actual = grad(variables, x), again(variables, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), actual, expected
    )
