"""Each family of primitives: ONNX Runtime compared with JAX, and its nodes."""

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dmnet_jax import memory as mem
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn.attention import softmax
from dmnet_jax.nn.layers import relu6
from dmnet_jax.nn.operators import Window, convolve, depthwise_3x3, matmul
from dmnet_jax.nn.pooling import max_pool_2x2, max_pool_3x3, max_pool_5x5
from dmnet_jax.nn.resizing import resize, resized_argmax, upsample_2x
from dmnet_jax.streaming.program import Interface

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from dmnet_jax.export import onnx_graph  # noqa: E402
from dmnet_jax.export.onnx_convert import convert  # noqa: E402

F32, I32, BOOL = np.float32, np.int32, np.bool_
MAP = (1, 6, 8, 4)
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 4, 5)).astype(F32)
DEPTHWISE = RNG.normal(size=(3, 3, 1, 4)).astype(F32)
DENSE = RNG.normal(size=(4, 5)).astype(F32)
CHANNELS = RNG.normal(size=4).astype(F32)
PADDED = Window(((1, 1), (1, 1)))


def random_inputs(*shapes: Any, dtype: Any = F32, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    if dtype == BOOL:
        return [rng.random(shape) < 0.5 for shape in shapes]
    if dtype == I32:
        return [rng.integers(-7, 8, shape).astype(I32) for shape in shapes]
    return [rng.normal(size=shape).astype(F32) for shape in shapes]


def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def graph_of(fn, arguments):
    """The model of `fn`, which returns one array or a tuple."""

    def step(*arguments):
        result = fn(*arguments)
        return result if isinstance(result, tuple) else (result,)

    inputs = {f"x{i}": shape_of(x) for i, x in enumerate(arguments)}
    count = len(jax.eval_shape(step, *arguments))
    return convert(step, inputs, [f"y{i}" for i in range(count)])


def check(fn, *arguments, rtol=1e-5):
    """Runs both; returns how many nodes of each kind there are."""
    content = graph_of(fn, arguments)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    actual = session.run(None, {f"x{i}": x for i, x in enumerate(arguments)})
    expected = fn(*map(jnp.asarray, arguments))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert one.dtype == other.dtype and one.shape == other.shape, index
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-5, err_msg=str(index))
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


def test_elementwise():
    def fn(x, y):
        positive = jnp.abs(x) + 0.1
        return (
            *(x + y, x - y, x * y, x / y, x / 3, -x, x**2, x**3, positive**y),
            *(jnp.exp(x), jnp.log(positive), jnp.log1p(positive), jnp.expm1(x)),
            *(jnp.sqrt(positive), lax.rsqrt(positive), jnp.tanh(x), lax.erf(x)),
            *(jax.nn.sigmoid(x), jax.nn.relu(x), jax.nn.softplus(x), jax.nn.silu(x)),
            *(jnp.clip(x, -0.5, 0.5), lax.clamp(F32(0), x, F32(1)), jnp.sign(x)),
            *(jnp.maximum(x, y), jnp.minimum(x, 0.2), jnp.floor(x), jnp.ceil(y)),
            *(jnp.where(x > y, x, 0), x % 0.7, lax.rem(x, F32(0.7)), jnp.exp2(x)),
            *(x <= y, x != y, (x > 0) & (y > 0) | ~(x >= y), jnp.isfinite(x / 0)),
            *(x.astype(I32), (x > 0).astype(F32), jnp.cos(x), jnp.sin(y)),
        )

    check(fn, *random_inputs((3, 5), (3, 5)), rtol=1e-4)


def test_integers_and_booleans():
    def fn(x, y):
        return (
            x % 5,
            x % -3,
            lax.rem(x, I32(5)),
            x + y,
            x == y,
            jnp.maximum(x, y),
            x * 2,
        )

    check(fn, *random_inputs((4, 6), (4, 6), dtype=I32))
    logic = random_inputs((4,), (4,), dtype=BOOL)
    check(lambda a, b: (a ^ b, a == b, a & True, a & False, a | b), *logic)


def test_shapes():
    def fn(x):
        return (
            *(x.reshape(4, 6), x.transpose(2, 0, 1), x[:, ::2, 1:], x[None, 0]),
            *(jnp.concatenate([x, 2 * x], 1), jnp.stack([x, -x], 1), jnp.flip(x, 1)),
            jnp.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=3),
            *(jnp.broadcast_to(x[:, :1], x.shape), jnp.repeat(x, 2, axis=1)),
            *(x + jnp.arange(4), *jnp.split(x, 3, 1), jnp.cumsum(x, 1)),
            *(jnp.moveaxis(x, 0, 1), jnp.zeros(3)),
            jnp.pad(x > 0, ((0, 0), (1, 0), (0, 0))),
        )

    check(fn, *random_inputs((2, 3, 4)))


def test_reductions():
    def fn(x):
        return (
            *(x.sum(), x.sum(1), x.mean((0, 2)), x.max(-1), x.min(0), x.prod(1)),
            *((x > 0).all(1), (x > 0).any(), (x > 0).sum(0), x.argmax(1), x.argmin(-1)),
            *(softmax(x), jax.nn.softmax(x, axis=1), jax.nn.log_softmax(x)),
            *(jax.nn.logsumexp(x, axis=0), x.var(1), *lax.top_k(x, 2)),
        )

    check(fn, *random_inputs((2, 3, 4)))


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        ("bqc,bmc->bqm", [(1, 5, 4), (1, 6, 4)]),
        ("bqm,bmc->bqc", [(2, 5, 6), (2, 6, 3)]),
        ("abcd,cbe->aed", [(2, 3, 4, 5), (4, 3, 6)]),
        ("ab,cb->ac", [(2, 3), (4, 3)]),
        ("bhwc,bnhwc->bhwn", [(1, 3, 4, 5), (1, 9, 3, 4, 5)]),
        ("a,a->", [(5,), (5,)]),
    ],
)
def test_products(formula, shapes):
    check(lambda x, y: jnp.einsum(formula, x, y), *random_inputs(*shapes))


def test_layers_of_maps():
    def fn(x):
        y = convolve(x, KERNEL, PADDED) + DENSE[0]
        window = (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
        return (
            *(relu6(y), convolve(x, KERNEL, Window(((0, 1), (0, 1)), stride=2))),
            *(depthwise_3x3(x, DEPTHWISE, PADDED), matmul(x, DENSE) * y),
            *(max_pool_5x5(x), max_pool_2x2(x), max_pool_3x3(x), upsample_2x(x)),
            *(resize(x, (12, 16)), x.mean((1, 2)), y.sum(3), y.max((1, 3)), y.sum(1)),
            *(y.transpose(0, 3, 1, 2), y.reshape(1, -1), y[:, 1:3, :, :2]),
            *(y + y[:, :1], jnp.concatenate([x, y], -1)),
            jnp.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0))),
            *(jax.nn.softmax(y), y * y.mean((1, 2), keepdims=True), y.argmax(-1)),
            lax.reduce_window(x, 0.0, lax.add, *window),
            x * matmul(x.mean((1, 2), keepdims=True), DENSE[:, :4]),
        )

    check(fn, *random_inputs(MAP))
    check(lambda x: resized_argmax(x, (12, 16)), *random_inputs(MAP))
    check(lambda x: jnp.stack(jnp.split(matmul(x, DENSE), 5, -1)), *random_inputs(MAP))
    check(lambda x, k: convolve(x, k, PADDED), *random_inputs(MAP, KERNEL.shape))


def test_operations_with_an_onnx_node_become_one_node():
    def fn(x):
        x = relu6((convolve(x, KERNEL, PADDED) - 0.1) * DENSE[1] + DENSE[0])
        x = upsample_2x(max_pool_5x5(relu6(x + 1)))
        return matmul(x, DENSE.T) / 3 + CHANNELS

    assert check(fn, *random_inputs(MAP)) == {
        **{"Transpose": 2, "Conv": 2, "Clip": 2, "Add": 1, "MaxPool": 1, "Resize": 1},
        "Identity": 1,
    }


def test_control_flow():
    def fn(x, go):
        chosen = lax.cond(go.any(), lambda x: x @ DENSE, lambda x: x @ DENSE * 0, x)
        total, parts = lax.scan(lambda c, row: (c + row, c * row), x[0], x[1:])
        back = lax.scan(lambda c, row: (c - row, c), x[0], x, reverse=True)[1]
        branch = lax.cond(jnp.arange(3).sum() > 2, jnp.sin, jnp.cos, x)
        return chosen, total, parts, back, branch

    check(fn, *random_inputs((3, 4)), np.array([True]))
    check(fn, *random_inputs((3, 4)), np.array([False]))


@pytest.mark.parametrize("streams", [None, 1], ids=["alone", "vmapped"])
def test_rings(streams):
    def fn(slots, count, x, where, scores):
        ring = mem.RingBuffer(slots, jnp.arange(5, dtype=I32), count)
        window = mem.read_window(ring, 3, x)
        best = mem.stand_in(mem.read_top_k(ring, 2, scores), x)
        after = mem.push(ring, x, stamp=count, where=where)
        return (
            *(window, best.items, best.mask, best.stamp, mem.latest(ring)),
            *(after.slots, after.stamp, after.count),
        )

    step = fn if streams is None else jax.vmap(fn)
    for count, where in ((0, True), (3, True), (7, False)):
        arguments = [
            *random_inputs((5, 2, 3)),
            np.array(count, I32),
            *random_inputs((2, 3), seed=1),
        ]
        arguments += [np.array(where), *random_inputs((5,), seed=2)]
        if streams:
            arguments = [x[None] for x in arguments]
        check(step, *arguments)


def test_reads_and_writes_at_computed_indices():
    def fn(x, i):
        return (
            *(x.at[i].get(mode="clip"), x.at[:, i[0]].get(mode="clip")),
            *(x[:, jnp.array([2, 0])], lax.dynamic_slice(x, (i[0], 0), (2, 4))),
            *(x.at[i[1]].set(1.5, mode="clip"), x.at[i[0]].set(x[0], mode="drop")),
        )

    (x,) = random_inputs((3, 4))
    for places in ((1, 2), (9, 0), (-5, 1)):
        check(fn, x, np.array(places, I32))


def test_random_numbers_are_an_input():
    def step(x, key):
        ring = mem.RingBuffer(x, jnp.arange(4, dtype=I32), jnp.int32(4))
        return (mem.read_uniform(ring, 2, jax.random.fold_in(key, 1)).items,)

    x = jax.ShapeDtypeStruct((4, 3), F32)
    inputs = {"x": x, "draw": jax.ShapeDtypeStruct((1, 4), F32)}
    key = {"key": jax.ShapeDtypeStruct((2,), np.uint32)}
    content = convert(step, inputs, ["y"], unused=key, draw="draw")
    rows, draw = random_inputs((4, 3))[0], np.array([[0.1, 0.9, 0.2, 0.5]], F32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"x": rows, "draw": draw})
    np.testing.assert_array_equal(actual, rows[[1, 3]])
    with pytest.raises(ValueError, match="no input of that size"):
        convert(step, {"x": x}, ["y"], unused=key)
    with pytest.raises(ValueError, match=r"outside memory\.read_uniform"):
        convert(lambda x, key: (x + key[0],), {"x": x}, ["y"], unused=key)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (jnp.sort, "sort of float32"),
        (lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), "while"),
        (lambda x: lax.scan(lambda c, _: (c * 2, None), x, None, 99)[0], "scan"),
        (
            lambda x: lax.switch(x.astype(I32)[0, 0], [jnp.sin, jnp.cos, jnp.tan], x),
            "3 branches",
        ),
        (lambda x: x.at[x.astype(I32)[0]].set(1.0), "scatter"),
    ],
    ids=["sort", "while", "scan", "switch", "scatter"],
)
def test_unsupported_operations_are_one_error_line(fn, name):
    with pytest.raises(ValueError, match=name) as caught:
        graph_of(fn, random_inputs((3, 3)))
    assert "cannot be written as ONNX" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_graph_of_the_step_consists_of_layers():
    """The converter knows the named functions; maps stay channels first."""
    model, size = DMNet.tiny(3, local_size=2, num_reads=2, global_size=5), (64, 96)
    memory = model.init_memory(1, size, jax.random.key(0))
    frames = np.zeros((1, 1, *size, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(1), memory, frames)
    ones = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    content, notes = onnx_graph.export_step(model, ones, Interface(size, 1, 3, size))
    graph = onnx.load_from_string(content).graph
    nodes = Counter(node.op_type for node in graph.node)
    assert (nodes["Resize"], nodes["Softmax"], nodes["TopK"]) == (4, 2, 1)
    assert nodes["MaxPool"] == 4 and nodes["Clip"] == 19
    assert nodes["Transpose"] < 24 and sum(nodes.values()) < 400
    # Each ring write reads the graph input directly, so a runtime can do it in place.
    written = {node.input[0] for node in graph.node if node.op_type == "ScatterND"}
    assert {"memory.global_.slots.key", "memory.global_.slots.value"} <= written
    assert [x["name"] for x in notes["inputs"]] == [x.name for x in graph.input]
    assert [x["name"] for x in notes["outputs"]] == [x.name for x in graph.output]
