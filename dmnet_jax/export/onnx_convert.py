"""Converts a JAX function to an ONNX model, primitive by primitive.

This module handles elementwise primitives and reductions. Others are in `onnx_shapes`,
`onnx_products` and `onnx_indexing`. Functions recognized by name are in `onnx_named`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.extend.core import Literal

from dmnet_jax.export import onnx_indexing, onnx_named, onnx_products, onnx_shapes
from dmnet_jax.export.onnx_builder import Graph, integers
from dmnet_jax.export.onnx_flat import flatten
from dmnet_jax.export.onnx_values import (
    TO_FIRST,
    Value,
    Writer,
    constant,
)

SAME = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow"},
    **{"max": "Max", "min": "Min", "neg": "Neg", "abs": "Abs", "sign": "Sign"},
    **{"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "erf": "Erf"},
    **{"sin": "Sin", "cos": "Cos", "floor": "Floor", "ceil": "Ceil"},
    **{"logistic": "Sigmoid", "lt": "Less", "gt": "Greater", "eq": "Equal"},
    **{"le": "LessOrEqual", "ge": "GreaterOrEqual"},
}
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}
REDUCED = {
    **{"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"},
    **{
        "reduce_prod": "ReduceProd",
        "reduce_and": "ReduceMin",
        "reduce_or": "ReduceMax",
    },
}


def convert(
    fn: Callable[..., Sequence[Array]],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    unused: Mapping[str, Any] | None = None,
    draw: str | None = None,
) -> bytes:
    """Converts a JAX function to a serialized ONNX model.

    Args:
        fn: function of arrays, in the order of `inputs` and then `unused`, that returns
            a sequence of arrays.
        inputs: shape and dtype of the model's inputs, by name.
        outputs: names of the arrays that `fn` returns.
        unused: shape and dtype of further arguments. No output may depend on them after
            random numbers have become an input.
        draw: name of the input with the random numbers of `memory.read_uniform`; it is
            not an argument of `fn`.

    Raises:
        ValueError: a primitive is not supported, or an output depends on an argument in
            `unused`.
    """
    unused = unused or {}
    arguments = {n: x for n, x in inputs.items() if n != draw} | dict(unused)
    closed = flatten(
        fn, list(arguments.values()), {*onnx_named.NAMED, onnx_named.DRAWN}
    )
    writer = Writer(Graph())
    values: dict[Any, Value] = {
        v: constant(x)
        for v, x in zip(closed.jaxpr.constvars, closed.consts, strict=True)
    }
    for name, x in inputs.items():
        writer.g.input(name, x.shape, x.dtype)
    for v, name in zip(closed.jaxpr.invars, arguments, strict=True):
        if name not in unused:
            values[v] = writer.whole(name, v.aval)
    random = None if draw is None else writer.whole(draw, inputs[draw])
    for equation in _needed(closed.jaxpr):
        if _is_drawn(equation):
            results = [_drawn(writer, random, equation.outvars[0].aval)]
        else:
            operands = [_read(values, x) for x in equation.invars]
            results = write(writer, equation, operands)
        values |= dict(zip(equation.outvars, results, strict=True))
    for name, x in zip(outputs, closed.jaxpr.outvars, strict=True):
        value = _read(values, x)
        writer.g.output(name, writer.full(value), value.shape, value.dtype)
    return writer.g.serialize("dmnet_step")


def _needed(jaxpr: Any) -> list[Any]:
    """Returns the equations that outputs depend on; random numbers have no inputs."""
    needed, equations = set(filter(_is_variable, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            equations.append(equation)
            if not _is_drawn(equation):
                needed.update(filter(_is_variable, equation.invars))
    return equations[::-1]


def _is_drawn(equation: Any) -> bool:
    return equation.params.get("name") == onnx_named.DRAWN


def _is_variable(x: Any) -> bool:
    return not isinstance(x, Literal)


def _read(values: dict[Any, Value], x: Any) -> Value:
    if isinstance(x, Literal):
        aval: Any = x.aval
        return constant(np.asarray(x.val, aval.dtype))
    if x not in values:
        raise ValueError(
            "the step uses the memory's .key outside memory.read_uniform, which cannot "
            "be written as ONNX; export it with --format jax"
        )
    return values[x]


def write(w: Writer, equation: Any, xs: list[Value]) -> list[Value]:
    """Writes an equation and returns its results."""
    params, outs = equation.params, [x.aval for x in equation.outvars]
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        return [onnx_named.NAMED[params["name"]](w, xs, outs[0])]
    for table in _TABLES:
        if name in table:
            results = table[name](w, xs, outs[0] if len(outs) == 1 else outs, params)
            return results if isinstance(results, list) else [results]
    if name == "and" and outs[0].dtype == bool:
        xs = [x for x in xs if x.constant is None or not x.constant.all()] or xs[:1]
        if len(xs) == 1:
            return xs
    if name in LOGICAL and outs[0].dtype == bool:
        return [w.elementwise(lambda *x: w.g.add(LOGICAL[name], *x), xs, outs[0])]
    if name in SAME and xs[0].dtype != bool or name == "eq":
        return [w.elementwise(lambda *x: w.g.add(SAME[name], *x), xs, outs[0])]
    if name in REDUCED:
        return [_reduced(w, REDUCED[name], xs[0], outs[0], params["axes"])]
    kinds = ", ".join(f"{x.dtype}{list(x.shape)}" for x in xs)
    raise ValueError(
        f"{name} of {kinds} cannot be written as ONNX; export with --format jax"
    )


def _drawn(w: Writer, random: Value | None, out: Any) -> Value:
    if random is None or np.prod(random.shape) != np.prod(out.shape):
        raise ValueError(
            f"random numbers of shape {list(out.shape)} are drawn, but the "
            "graph has no input of that size for them"
        )
    return w.whole(w.reshaped(random, out.shape), out)


def _reduced(w: Writer, op: str, v: Value, out: Any, axes: Sequence[int]) -> Value:
    x, places = _for_reduction(w, v, axes)
    if v.dtype == bool:
        x = w.g.cast(x, np.int32)
    x = w.g.add(op, x, integers(places), keepdims=0)
    return w.whole(w.g.cast(x, bool) if v.dtype == bool else x, out)


def _for_reduction(w: Writer, v: Value, axes: Sequence[int]) -> Any:
    """Returns the tensor and its axes; the remaining axes must be in JAX's order."""
    if v.is_map:
        remaining = [i for i in TO_FIRST if i not in axes and v.shape[i] > 1]
        if remaining == sorted(remaining):
            return w.full_first(v), [TO_FIRST.index(axis) for axis in axes]
    return w.full(v), list(axes)


def _arg(op: str) -> Any:
    def write(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
        x, (axis,) = _for_reduction(w, xs[0], params["axes"])
        return w.whole(w.g.cast(w.g.add(op, x, axis=axis, keepdims=0), out.dtype), out)

    return write


def _composed(make: Callable[..., Any]) -> Any:
    """Writer of several elementwise nodes: `make(graph, params, out, *tensors)`."""

    def write(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
        return w.elementwise(lambda *x: make(w.g, params, out, *x), xs, out)

    return write


def _integer_pow(g: Graph, params: Any, out: Any, x: Any) -> str:
    if params["y"] == 2:
        return g.add("Mul", x, x)
    return g.add("Pow", x, np.asarray(params["y"], out.dtype))


def _select(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    if len(xs) != 3:
        raise ValueError(
            f"select_n of {len(xs) - 1} cases cannot be written as ONNX; use jnp.where"
        )
    as_bool = w.g.cast if xs[0].dtype != bool else lambda x, _: x
    return w.elementwise(
        lambda s, no, yes: w.g.add("Where", as_bool(s, bool), yes, no), xs, out
    )


_TABLE: dict[str, Callable[..., Any]] = {
    "convert_element_type": _composed(lambda g, p, out, x: g.cast(x, out.dtype)),
    "square": _composed(lambda g, p, out, x: g.add("Mul", x, x)),
    "integer_pow": _composed(_integer_pow),
    "rsqrt": _composed(lambda g, p, out, x: g.add("Reciprocal", g.add("Sqrt", x))),
    "log1p": _composed(
        lambda g, p, out, x: g.add("Log", g.add("Add", x, np.ones((), out.dtype)))
    ),
    "expm1": _composed(
        lambda g, p, out, x: g.add("Sub", g.add("Exp", x), np.ones((), out.dtype))
    ),
    "exp2": _composed(lambda g, p, out, x: g.add("Pow", np.full((), 2, out.dtype), x)),
    "rem": _composed(lambda g, p, out, *x: g.add("Mod", *x, fmod=1)),
    "ne": _composed(lambda g, p, out, *x: g.add("Not", g.add("Equal", *x))),
    "is_finite": _composed(
        lambda g, p, out, x: g.add("Less", g.add("Abs", x), np.float32(np.inf))
    ),
    "clamp": _composed(
        lambda g, p, out, low, x, high: g.add("Min", g.add("Max", x, low), high)
    ),
    "select_n": _select,
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
}

_TABLES = (_TABLE, onnx_shapes.TABLE, onnx_products.TABLE, onnx_indexing.TABLE)
