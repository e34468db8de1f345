"""ONNX conversion of indexing primitives: gather, scatter, dynamic_slice, top_k.

The write to a ring touches one row, so a runtime whose output shares the input's buffer
copies nothing. For that, no node may be inserted between the graph's input and the
write.
"""

import math
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from dmnet_jax.export.onnx_builder import Operand, integers
from dmnet_jax.export.onnx_values import Value, Writer


def _gather(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    """Gathers rows along one axis; the other axes must be taken whole."""
    (v, index), d, sizes = xs, p["dimension_numbers"], p["slice_sizes"]
    column, axis = _place(v, index, sizes, d.start_index_map, d.operand_batching_dims)
    constant = index.constant
    last = v.shape[axis or 0] - 1
    if p["mode"] == GatherScatterMode.FILL_OR_DROP and not (
        constant is not None and constant.min() >= 0 and constant.max() <= last
    ):
        raise ValueError(
            "a gather that fills out-of-bounds values cannot be written as ONNX; read "
            'with mode="clip" or "promise_in_bounds"'
        )
    count = math.prod(index.shape[:-1])
    if axis is None:
        if count != 1:
            raise ValueError("a gather that repeats its operand cannot be written")
        return w.whole(w.reshaped(v, out.shape), out)
    place = _column(w, index, column, [count])
    if p["mode"] == GatherScatterMode.CLIP:
        place = _clipped(w, place, last, index.dtype)
    x = w.g.add("Gather", w.full(v), place, axis=axis)

    # `order` is the order of the operand's axes in the result; absent axes come last.
    other_axes = [i for i in range(len(v.shape)) if i != axis]
    collapsed = (*d.collapsed_slice_dims, *d.operand_batching_dims)
    offsets = iter([i for i in range(len(v.shape)) if i not in collapsed])
    order: list[int] = []
    for place_out, n in enumerate(out.shape):
        source = next(offsets) if place_out in d.offset_dims else axis
        if (n > 1 or source == axis) and source not in order:
            order.append(source)
        elif n > 1 and order[-1] != source:
            raise ValueError("a gather whose index is split cannot be written as ONNX")
    order += [i for i in (*other_axes, axis) if i not in order]
    shape = [count if i == axis else n for i, n in enumerate(v.shape)]
    x = w.moved(x, shape, order)
    return w.whole(w.reshape(x, [shape[i] for i in order], out.shape), out)


def _scatter(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    """Replaces one row; an out-of-bounds write replaces a row by itself."""
    (v, index, row), d = xs, p["dimension_numbers"]
    sizes = list(v.shape)
    for i in (*d.inserted_window_dims, *d.operand_batching_dims):
        sizes[i] = 1
    column, axis = _place(
        v, index, sizes, d.scatter_dims_to_operand_dims, d.operand_batching_dims
    )
    one = math.prod(index.shape[:-1]) == 1
    if axis is None and one:
        axis = d.inserted_window_dims[0] if d.inserted_window_dims else 0
    if axis is None or not one or math.prod(v.shape[:axis]) != 1:
        raise ValueError(
            "a scatter of more than one row of a leading axis cannot be written as ONNX"
        )
    head, slots = _column(w, index, column, [1]), w.full(v)
    last = v.shape[axis] - 1
    inside, place = None, head
    if p["mode"] == GatherScatterMode.FILL_OR_DROP:
        place = _clipped(w, head, last, index.dtype)
        inside = w.g.add("Equal", head, place)
    elif p["mode"] == GatherScatterMode.CLIP:
        place = _clipped(w, head, last, index.dtype)
    place = w.g.cast(place, np.int64)
    if axis:
        place = w.g.add("Concat", integers([0] * axis), place, axis=0)
    place = w.g.reshape(place, [axis + 1], [1, axis + 1])
    x: Any = w.reshaped(row, (1, *v.shape[axis + 1 :]))
    if inside is not None:
        x = _chosen(w, inside, x, w.g.add("GatherND", slots, place), v.dtype)
    return w.whole(w.g.add("ScatterND", slots, place, x), out)


def _chosen(w: Writer, yes: str, new: Operand, old: str, dtype: Any) -> str:
    """Selects one of two rows. OpenVINO computes a `Where` of integers in float32."""
    if dtype.kind == "f":
        return w.g.add("Where", yes, new, old)
    both = w.g.add("Concat", old, new, axis=0)
    return w.g.add("Gather", both, w.g.cast(yes, np.int64), axis=0)


def _place(
    v: Value, index: Value, sizes: Any, axes: Any, batching: Any
) -> tuple[int, int | None]:
    """Returns which component of an index varies, and the axis that it indexes.

    An axis that is taken whole has only one possible start, so its component is
    ignored. The axis is None if all axes are taken whole.
    """
    if any(v.shape[i] != 1 for i in batching):
        raise ValueError("a batched gather or scatter cannot be written as ONNX")
    varying = [i for i, axis in enumerate(axes) if sizes[axis] != v.shape[axis]]
    if not varying:
        return 0, None
    if len(varying) > 1 or sizes[axes[varying[0]]] != 1:
        raise ValueError(
            "a gather or scatter at several axes, or of several rows together, cannot "
            "be written as ONNX"
        )
    return varying[0], axes[varying[0]]


def _column(w: Writer, index: Value, column: int, shape: list[int]) -> Operand:
    """Selects one component of the indices [..., n]."""
    n = index.shape[-1]
    if n == 1:
        return w.reshaped(index, shape)
    count = math.prod(shape)
    flat = w.reshaped(index, (count, n))
    x = w.g.add("Gather", flat, integers([column]), axis=1)
    return w.reshape(x, (count, 1), shape)


def _clipped(w: Writer, x: Operand, last: int, dtype: Any) -> str:
    x = w.g.add("Max", x, np.asarray(0, dtype))
    return w.g.add("Min", x, np.asarray(last, dtype))


def _dynamic_slice(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    v, *starts = xs
    x = w.full(v)
    for axis, (start, n, size) in enumerate(
        zip(starts, v.shape, p["slice_sizes"], strict=True)
    ):
        if size < n:
            place = w.reshaped(start, [1])
            first = w.g.cast(_clipped(w, place, n - size, start.dtype), np.int64)
            end = w.g.add("Add", first, integers([size]))
            x = w.g.add("Slice", x, first, end, integers([axis]))
    return w.whole(x, out)


def _top_k(w: Writer, xs: list[Value], outs: Any, p: Any) -> list[Value]:
    x, values = w.full(xs[0]), outs[0]
    if p.get("axis", -1) not in (-1, len(values.shape) - 1):
        raise ValueError(
            "top_k along an axis other than the last cannot be written as ONNX"
        )
    best, index = w.g.add_all("TopK", (x, integers([p["k"]])), 2, axis=-1)
    index = w.g.cast(index, outs[1].dtype)
    return [w.whole(best, values), w.whole(index, outs[1])]


def _stack(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    axes = integers([p["axis"]])
    tensors = [w.g.add("Unsqueeze", w.full(x), axes) for x in xs]
    return w.whole(w.g.add("Concat", *tensors, axis=p["axis"]), out)


TABLE: dict[str, Any] = {
    "gather": _gather,
    "scatter": _scatter,
    "dynamic_slice": _dynamic_slice,
    "top_k": _top_k,
    "stack": _stack,
}
