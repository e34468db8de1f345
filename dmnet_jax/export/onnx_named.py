"""Functions under `jax.jit` that have a single ONNX node, recognized by name.

This is only an optimization: the JAX implementations are written for XLA and would
convert to more and slower nodes. The table also has functions of JAX itself, such as
"remainder".
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dmnet_jax.export.onnx_builder import integers
from dmnet_jax.export.onnx_values import Value, Writer

DRAWN = "draw_scores"
"""`memory.draw_scores`. Its random numbers are an input of the graph."""


def _relu6(w: Writer, xs: list[Value], out: Any) -> Value:
    low, high = (np.asarray(n, out.dtype) for n in (0, 6))
    return w.elementwise(lambda x: w.g.add("Clip", x, low, high), xs, out)


def _relu(w: Writer, xs: list[Value], out: Any) -> Value:
    return w.elementwise(lambda x: w.g.add("Relu", x), xs, out)


def _remainder(w: Writer, xs: list[Value], out: Any) -> Value:
    """The result has the sign of the divisor, as in Python."""

    def of_floats(x: Any, y: Any) -> str:
        whole = w.g.add("Floor", w.g.add("Div", x, y))
        return w.g.add("Sub", x, w.g.add("Mul", whole, y))

    if out.dtype.kind == "f":
        return w.elementwise(of_floats, xs, out)
    return w.elementwise(lambda *x: w.g.add("Mod", *x), xs, out)


def _softmax(w: Writer, xs: list[Value], out: Any) -> Value:
    x, (axis,) = w.axes(xs[0], [len(out.shape) - 1])
    return w.like(w.g.add("Softmax", x, axis=axis), xs[0], out)


def _is_finite(w: Writer, xs: list[Value], out: Any) -> Value:
    """Uses that a sum of magnitudes is NaN or infinite if any of them is."""
    x, axes = w.axes(xs[0], range(len(out.shape), len(xs[0].shape)))
    if axes:
        x = w.g.add("ReduceL1", x, integers(axes), keepdims=0)
    else:
        x = w.g.add("Abs", x)
    return w.whole(w.g.add("Less", x, np.float32(np.inf)), out)


def _upsample_2x(w: Writer, xs: list[Value], out: Any) -> Value:
    scales = np.array([1, 1, 2, 2], np.float32)
    mode = {"coordinate_transformation_mode": "align_corners", "mode": "linear"}
    return w.map(w.g.add("Resize", w.full_first(xs[0]), "", scales, **mode), out)


def _resized_argmax(w: Writer, xs: list[Value], out: Any) -> Value:
    logits = next(x for x in xs if x.constant is None)
    shape = integers([out.shape[0], logits.shape[-1], *out.shape[1:]])
    mode = {"coordinate_transformation_mode": "half_pixel", "mode": "linear"}
    x = w.g.add("Resize", w.full_first(logits), "", "", shape, **mode)
    x = w.g.add("ArgMax", x, axis=1, keepdims=0)
    return w.whole(w.g.cast(x, out.dtype), out)


NAMED: dict[str, Callable[[Writer, list[Value], Any], Value]] = {
    "relu": _relu,
    "relu6": _relu6,
    "remainder": _remainder,
    "softmax": _softmax,
    "is_finite": _is_finite,
    "upsample_2x": _upsample_2x,
    "resized_argmax": _resized_argmax,
}
