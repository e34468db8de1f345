"""The ONNX writer has the network's structure: traced and counted, nothing compiled.

The graph is a second text of the network, and the parity gate runs it, which takes
minutes for all kinds. What a change to the network usually moves is compared here in
seconds: every convolution and product with its shapes, every pooling window, every
gate. What is not seen here (sums, orders, constants) is left to the gate.
"""

import functools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from dmnet_jax.export.stablehlo import leaf_names
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.streaming.forms import StreamForm, stream_form
from dmnet_jax.streaming.program import Interface, input_shapes

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")

from dmnet_jax.export import onnx_graph  # noqa: E402

SIZE = (64, 96)
# Numbers that differ from each other, so that no two layers have the same shapes by
# accident.
SMALL = {
    **{"num_classes": 5, "local_size": 2, "num_reads": 3, "global_size": 4},
    **{"key_channels": 6, "value_channels": 8, "width": 16},
}
KINDS = [
    {"local": local, "global_memory": remembers}
    for local in ("ela", "blstm", "clstm", "nl", "none")
    for remembers in (True, False)
] + [{"local": "nl", "share_key_value": True, "encoder": "torch"}]

Parts = Counter[tuple[Any, ...]]
"""How often each part is in the step. Equal parts do equal work:

    ("convolution", kernel HWIO, stride, pads of rows and columns, groups, output h w)
    ("product", contracted size, the two free sizes in order)
    ("maximum", window h w, output h w)
    ("sigmoid",), ("tanh",), ("relu6",)
"""


@functools.cache
def network(**settings: Any) -> tuple[DMNet, Any]:
    model = DMNet.tiny(**(SMALL | settings))

    def init() -> Any:
        key = jax.random.key(0)
        frame = jnp.zeros((1, *SIZE, 3), jnp.uint8)
        return model.init(key, model.init_memory(1, SIZE, key), frame, method="step")

    shapes = jax.eval_shape(init)
    return model, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)


def interface_of(model: DMNet) -> Interface:
    return Interface(SIZE, 1, model.num_classes, SIZE)


def parts_of_step(form: StreamForm, interface: Interface) -> Parts:
    """Of the step as XLA gets it, in the plain form of every operator."""
    closed = jax.make_jaxpr(form.step)(form.weights, *input_shapes(form, interface))
    always, guarded = _walk(closed.jaxpr, {})
    return always + guarded


def _walk(jaxpr: Jaxpr, values: dict[Any, Any]) -> tuple[Parts, Parts]:
    """Parts that always run, and those behind a condition.

    A graph has no conditions: what several of them guard (the projection of a frame,
    where it is needed) is there once, so the second are counted once.

    Args:
        jaxpr: whose equations are counted.
        values: of its variables, as far as they are known numbers.
    """
    always, guarded = Counter(), Counter()

    def value(x: Any) -> Any:
        return x.val if isinstance(x, Literal) else values.get(x)

    for e in jaxpr.eqns:
        name, params = e.primitive.name, e.params
        if name == "platform_index":
            # Of the branches of `lax.platform_dependent` the default is the last.
            values[e.outvars[0]] = len(params["platforms"]) - 1
        elif name in ("convert_element_type", "clamp", "copy"):
            given = e.invars[1 if name == "clamp" else 0]
            values[e.outvars[0]] = value(given)
        if name == "cond":
            branches, chosen = params["branches"], value(e.invars[0])
            taken = branches if chosen is None else branches[chosen : chosen + 1]
            for branch in taken:
                given = map(value, e.invars[1:])
                inner = dict(zip(branch.jaxpr.invars, given, strict=True))
                first, second = _walk(branch.jaxpr, inner)
                if chosen is None:
                    guarded |= first + second
                else:
                    always, guarded = always + first, guarded | second
            continue
        inner_jaxprs = [
            x.jaxpr if isinstance(x, ClosedJaxpr) else x
            for x in jax.tree.leaves(params, is_leaf=_is_jaxpr)
            if _is_jaxpr(x)
        ]
        assert name != "while" or not inner_jaxprs, "a loop of unknown length"
        times = params["length"] if name == "scan" else 1
        for inner in inner_jaxprs:  # that of a scatter has fewer arguments
            given = zip(inner.invars, map(value, e.invars), strict=False)
            first, second = _walk(inner, dict(given))
            always += Counter({part: times * n for part, n in first.items()})
            guarded |= second
        if not inner_jaxprs:
            always.update(_part(name, e, [value(x) for x in e.invars]))
    return always, guarded


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, (Jaxpr, ClosedJaxpr))


def _part(name: str, e: Any, values: list[Any]) -> list[tuple[Any, ...]]:
    """What an equation is, if it is any."""
    shapes, out = [x.aval.shape for x in e.invars], e.outvars[0].aval.shape
    if name == "conv_general_dilated":
        stride, groups = e.params["window_strides"][0], e.params["feature_group_count"]
        return [convolution(shapes[1], stride, e.params["padding"], groups, out[1:3])]
    if name == "dot_general":
        (left, right), (batch, _) = e.params["dimension_numbers"]
        assert all(shapes[0][axis] == 1 for axis in batch), "for one stream"
        if len(shapes[0]) == 4 and len(shapes[1]) == 2:  # a 1x1 convolution
            kernel = (1, 1, *shapes[1])
            return [convolution(kernel, 1, ((0, 0), (0, 0)), 1, out[1:3])]
        inner = math.prod(shapes[0][axis] for axis in left)
        assert inner == math.prod(shapes[1][axis] for axis in right)
        return [product(inner, *(math.prod(shape) // inner for shape in shapes))]
    if name == "reduce_window_max":
        return [("maximum", tuple(e.params["window_dimensions"][1:3]), out[1:3])]
    if name == "min" and any(np.ndim(x) == 0 and x == 6 for x in values):
        return [("relu6",)]
    return {"logistic": [("sigmoid",)], "tanh": [("tanh",)]}.get(name, [])


def parts_of_graph(content: bytes) -> Parts:
    """Of a serialised ONNX step."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    shapes = {x.name: shape_of(x) for x in [*graph.value_info, *graph.input]}
    shapes |= {x.name: tuple(x.dims) for x in graph.initializer}
    numbers = {
        x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer if not x.dims
    }
    parts: Parts = Counter()
    for node in graph.node:
        given = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        size = shapes.get(node.output[0], ())[2:]
        if node.op_type == "Conv":
            features, channels, height, width = shapes[node.input[1]]
            kernel = (height, width, channels, features)
            top, left, bottom, right = given["pads"]
            pads = ((top, bottom), (left, right))
            stride = given["strides"][0]
            parts[convolution(kernel, stride, pads, given["group"], size)] += 1
        elif node.op_type == "MatMul":
            left, right = (shapes[name] for name in node.input)
            parts[product(right[0], left[0], right[1])] += 1
        elif node.op_type == "MaxPool":  # rows, then columns
            rows, columns = given["kernel_shape"]
            parts.update([("maximum", w, size) for w in ((rows, 1), (1, columns))])
        elif node.op_type == "Clip":
            assert [float(numbers[name]) for name in node.input[1:]] == [0, 6]
            parts[("relu6",)] += 1
        elif node.op_type in ("Sigmoid", "Tanh"):
            parts[(node.op_type.lower(),)] += 1
    return parts


def convolution(kernel: Any, stride: Any, pads: Any, groups: Any, size: Any) -> Any:
    pads = tuple(map(tuple, pads))
    return "convolution", tuple(kernel), stride, pads, groups, tuple(size)


def product(inner: int, *free: int) -> tuple[Any, ...]:
    return "product", inner, tuple(sorted(free))


def shape_of(x: Any) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in x.type.tensor_type.shape.dim)


@pytest.mark.parametrize(
    "settings", KINDS, ids=lambda kind: "-".join(map(str, kind.values()))
)
def test_the_graph_has_the_parts_of_the_step(settings):
    model, variables = network(**settings)
    interface = interface_of(model)
    content, _ = onnx_graph.export_step(model, variables, interface)
    form = stream_form(model, variables, SIZE)
    wanted, found = parts_of_step(form, interface), parts_of_graph(content)
    assert not wanted - found, "in the network, not in the graph"
    assert not found - wanted, "in the graph, not in the network"
    assert sum(n for part, n in found.items() if part[0] == "convolution") > 30

    memory = input_shapes(form, interface)[0]
    held = dict(zip(leaf_names(memory), jax.tree.leaves(memory), strict=True))
    del held[".key"]
    written = onnx.load_from_string(content).graph
    for prefix, ends in (("memory", written.input), ("next_memory", written.output)):
        given = {x.name: shape_of(x) for x in ends if x.name.startswith(prefix)}
        assert given == {f"{prefix}{name}": x.shape for name, x in held.items()}


def more(form: StreamForm, add: Any) -> StreamForm:
    """The form with something added to its step that changes nothing it gives."""

    def step(weights, memory, frames, *rest):
        memory, output = form.step(weights, memory, frames, *rest)
        extra = 0 * add(jnp.float32(frames)).sum()
        return memory, output.replace(confidence=output.confidence + extra)

    return form._replace(step=step)


@pytest.mark.parametrize(
    ("add", "missing"),
    [
        (lambda x: x @ np.ones((3, 7), np.float32), "convolution"),
        (jnp.tanh, "tanh"),
        (lambda x: jnp.clip(x, 0, 6), "relu6"),
    ],
    ids=["dense", "gate", "activation"],
)
def test_what_the_writer_does_not_follow_is_seen(add, missing):
    model, variables = network(**KINDS[0])
    interface = interface_of(model)
    form = stream_form(model, variables, SIZE)
    changed = parts_of_step(more(form, add), interface)
    assert [part[0] for part in changed - parts_of_step(form, interface)] == [missing]
