"""Recurrent cells and attention, compared with loops in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmnet_jax.nn.attention import KeyValue, NonLocal
from dmnet_jax.nn.mobilenet import MobileNetV2, normalize
from dmnet_jax.nn.recurrent import BottleneckLSTM, ConvLSTM


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def conv(x, kernel):
    """3x3 convolution of x [h, w, C] with kernel [3, 3, C, D] and zero padding 1."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    return sum(
        padded[i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def depthwise(x, kernel):
    return conv(x, kernel[:, :, 0, :, None] * np.eye(x.shape[-1]))


def random_parameters(module, *inputs):
    """Random float64 parameters, large enough that the gates are nonlinear."""
    init = partial(module.init, method=rolled)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
    leaves, structure = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    values = [0.3 * rng.standard_normal(leaf.shape) for leaf in leaves]
    return jax.tree.unflatten(structure, values)


def rolled(cell, window):
    """A bound cell, scanned over frames [B, T, h, w, C]."""
    frames = window.reshape(-1, *window.shape[2:])
    projected = cell.project(frames)
    return cell(projected.reshape(*window.shape[:2], *projected.shape[1:]))


def test_bottleneck_lstm_equals_its_equations():
    module = BottleneckLSTM(4)
    window = np.random.default_rng(1).standard_normal((2, 3, 5, 4, 4))
    p = random_parameters(module, jnp.asarray(window, jnp.float32))
    expected = []
    for video in window:
        hidden = cell = np.zeros((5, 4, 4))
        for frame in video:
            x = depthwise(frame, p["input_filter"]["kernel"])
            x = np.concatenate([x + p["input_filter"]["bias"], hidden], -1)
            x = x @ p["bottleneck"]["kernel"][0, 0] + p["bottleneck"]["bias"]
            x = depthwise(x, p["gate_filter"]["kernel"])
            i, f, c, o = (x @ p[f"gate_{g}"]["kernel"][0, 0] for g in "ifco")
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
            hidden = sigmoid(o) * np.tanh(cell)
        expected.append(hidden)
    apply = jax.jit(partial(module.apply, method=rolled))
    actual = apply({"params": p}, jnp.asarray(window, jnp.float32))
    np.testing.assert_allclose(actual, np.stack(expected), atol=1e-4)


def test_conv_lstm_equals_its_equations():
    module = ConvLSTM(3)
    window = np.random.default_rng(1).standard_normal((2, 3, 4, 5, 3))
    p = random_parameters(module, jnp.asarray(window, jnp.float32))
    expected = []
    for video in window:
        hidden = cell = np.zeros((4, 5, 3))
        for frame in video:
            gates = conv(np.concatenate([frame, hidden], -1), p["gates"]["kernel"])
            i, f, o, g = np.split(gates + p["gates"]["bias"], 4, -1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
        expected.append(hidden)
    apply = jax.jit(partial(module.apply, method=rolled))
    actual = apply({"params": p}, jnp.asarray(window, jnp.float32))
    np.testing.assert_allclose(actual, np.stack(expected), atol=1e-4)


def attend(module, query, memory, mask):
    run = jax.jit(lambda *inputs: module.apply({}, *inputs, train=False))
    return run(query, memory, mask)


@pytest.mark.parametrize("readable", [(True, True, True), (False, True, False)])
def test_attention_reads_only_what_the_mask_allows(readable):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape)

    query = KeyValue(draw(2, 2, 3, 4), draw(2, 2, 3, 5))
    memory = KeyValue(draw(2, 3, 2, 3, 4), draw(2, 3, 2, 3, 5))
    mask = np.broadcast_to(readable, (2, 3))
    actual = attend(NonLocal(), *jax.tree.map(np.float32, (query, memory)), mask)
    for b in range(2):
        keys = memory.key[b][list(readable)].reshape(-1, 4)
        values = memory.value[b][list(readable)].reshape(-1, 5)
        for y in range(2):
            for x in range(3):
                weights = np.exp(keys @ query.key[b, y, x] / 2)
                read = weights @ values / weights.sum()
                expected = np.concatenate([read, query.value[b, y, x]])
                np.testing.assert_allclose(actual[b, y, x], expected, atol=1e-4)


def test_mobilenet_strides_and_widths():
    encoder = MobileNetV2()
    x = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: encoder.init(jax.random.key(0), x, train=False), x
    )
    outputs = jax.eval_shape(
        lambda v, x: encoder.apply(v, x, train=False), variables, x
    )
    assert [o.shape[1:] for o in outputs] == [
        (16, 24, 24),
        (8, 12, 32),
        (4, 6, 64),
        (4, 6, 96),
        (2, 3, 160),
        (2, 3, 320),
    ]


@pytest.mark.parametrize("cell", [BottleneckLSTM(4), ConvLSTM(4)])
def test_cells_in_bfloat16_are_near_float32(cell):
    window = np.random.default_rng(1).standard_normal((1, 3, 2, 3, 4), np.float32)
    variables = {"params": random_parameters(cell, window)}
    exact, rounded = (
        jax.jit(partial(one.apply, method=rolled))(variables, window)
        for one in (cell, cell.clone(dtype=jnp.bfloat16))
    )
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.05)


def test_attention_in_bfloat16_survives_large_logits():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(30 * rng.standard_normal(shape), jnp.bfloat16)

    query = KeyValue(draw(1, 2, 3, 4), draw(1, 2, 3, 5))
    memory = KeyValue(draw(1, 2, 2, 3, 4), draw(1, 2, 2, 3, 5))
    mask = np.ones((1, 2), bool)
    actual = attend(NonLocal(dtype=jnp.bfloat16), query, memory, mask)
    query, memory = jax.tree.map(lambda x: x.astype(jnp.float32), (query, memory))
    exact = attend(NonLocal(), query, memory, mask)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(actual.astype(jnp.float32), exact, rtol=0.02, atol=0.5)


def test_normalized_images():
    x = jnp.array([[0, 127, 255]], jnp.uint8)
    np.testing.assert_allclose(
        normalize(x, "keras"), [[-1, 127 / 127.5 - 1, 1]], atol=1e-6
    )
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.array([[0, 127, 255]]) / 255 - mean) / deviation
    np.testing.assert_allclose(normalize(x, "torch"), expected, atol=1e-6)
