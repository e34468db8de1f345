"""ONNX conversion of primitives that reshape, slice and join arrays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmnet_jax.export.onnx_builder import integers
from dmnet_jax.export.onnx_values import TO_FIRST, TO_LAST, Value, Writer, spread


def _broadcast(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    """Adds axes of size 1; the tensor is broadcast where it is used."""
    v, real = xs[0], [1] * len(out.shape)
    sizes = spread(v.real, len(v.shape))
    for place, n in zip(params["broadcast_dimensions"], sizes, strict=True):
        real[place] = n
    if v.is_map and tuple(real) == sizes and len(real) == 4:
        return Value(out.shape, out.dtype, v.real, v.last, v.first)
    if _is_one(v, out) or tuple(real) == sizes:
        return Value(out.shape, out.dtype, v.real, w.last(v))
    return Value(out.shape, out.dtype, tuple(real), w.reshape(w.last(v), v.real, real))


def _is_one(v: Value, out: Any) -> bool:
    """Whether `v` is a single number whose tensor broadcasts to the result's shape."""
    return math.prod(v.real) == 1 and len(v.real) <= len(out.shape)


def _reshape(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    v = xs[0]
    if out.shape == v.shape:
        return v
    if _is_one(v, out):
        return Value(out.shape, out.dtype, v.real, w.last(v))
    return w.whole(w.reshaped(v, out.shape), out)


def _transpose(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    v, order = xs[0], params["permutation"]
    if v.is_map and tuple(order) == TO_FIRST:
        return w.whole(w.full_first(v), out)
    if tuple(order) == TO_LAST and not v.is_map:
        return w.map(w.full(v), out)
    return w.whole(w.moved(w.full(v), v.shape, order), out)


def _concatenate(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    axis = params["dimension"]
    if any(x.is_map for x in xs):
        tensors = [w.full_first(x) for x in xs]
        return w.map(w.g.add("Concat", *tensors, axis=TO_FIRST.index(axis)), out)
    return w.whole(w.g.add("Concat", *map(w.full, xs), axis=axis), out)


def _split(w: Writer, xs: list[Value], outs: Any, params: Any) -> list[Value]:
    sizes = [int(n) for n in params["sizes"]]
    if len(sizes) == 1:
        return xs
    x, (axis,) = w.axes(xs[0], [params["axis"]])
    parts = w.g.add_all("Split", (x, integers(sizes)), len(sizes), axis=axis)
    return [w.like(x, xs[0], out) for x, out in zip(parts, outs, strict=True)]


def _slice(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    v, starts, ends = xs[0], params["start_indices"], params["limit_indices"]
    steps = params["strides"] or [1] * len(starts)
    sliced_axes = [
        i for i, n in enumerate(v.shape) if (starts[i], ends[i], steps[i]) != (0, n, 1)
    ]
    if not sliced_axes:
        return v
    x, axes = w.axes(v, sliced_axes)
    bounds = ([p[i] for i in sliced_axes] for p in (starts, ends))
    sliced_steps = [steps[i] for i in sliced_axes]
    x = w.g.add("Slice", x, *map(integers, (*bounds, axes, sliced_steps)))
    return w.like(x, v, out)


def _reverse(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    x, axes = w.axes(xs[0], params["dimensions"])
    n = len(axes)
    ends = [-1] * n, [np.iinfo(np.int64).min] * n, axes, [-1] * n
    return w.like(w.g.add("Slice", x, *map(integers, ends)), xs[0], out)


def _pad(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    config = params["padding_config"]
    if any(inner for *_, inner in config) or min(min(c) for c in config) < 0:
        raise ValueError("interior or negative padding cannot be written as ONNX")
    (v, fill), axes = xs, [i for i, ends in enumerate(config) if any(ends)]
    if not axes:
        return v
    x, places = w.axes(v, axes)
    filler = w.reshaped(fill, ())
    if v.dtype == bool:
        x, filler = w.g.cast(x, np.int32), w.g.cast(filler, np.int32)
    pads = [config[i][end] for end in (0, 1) for i in axes]
    x = w.g.add("Pad", x, integers(pads), filler, integers(places))
    return w.like(w.g.cast(x, bool) if v.dtype == bool else x, v, out)


def _cumsum(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    x, (axis,) = w.axes(xs[0], [params["axis"]])
    x = w.g.add("CumSum", x, integers(axis), reverse=int(params["reverse"]))
    return w.like(x, xs[0], out)


TABLE: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "cumsum": _cumsum,
}
