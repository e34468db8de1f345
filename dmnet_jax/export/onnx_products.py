"""ONNX conversion of convolutions, pooling and matrix products."""

import math
from typing import Any, NamedTuple

import numpy as np

from dmnet_jax.export.onnx_builder import Operand
from dmnet_jax.export.onnx_values import TO_FIRST, Value, Writer, spread


class Layer(NamedTuple):
    """A convolution already written; following operations may be folded into it.

    Attributes:
        x: the input.
        kernel: [D, C, h, w].
        bias: [D], or None.
        attributes: attributes of the node.
    """

    x: Operand
    kernel: np.ndarray
    bias: np.ndarray | None
    attributes: dict[str, Any]


class Pool(NamedTuple):
    """A max-pooling already written; a following one may be merged with it.

    Attributes:
        x: the input.
        window: (h, w).
        pads: (top, left, bottom, right).
        strides: (vertical, horizontal).
    """

    x: Operand
    window: tuple[int, ...]
    pads: tuple[int, ...]
    strides: tuple[int, ...]


def _convolution(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    (x, kernel), (lhs, rhs, result) = xs, p["dimension_numbers"]
    is_nhwc = lhs == result == TO_FIRST and tuple(rhs) == (3, 2, 0, 1)
    if not is_nhwc or set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1:
        raise ValueError(
            "a convolution that is not NHWC with an HWIO kernel, or is transposed, "
            "cannot be written as ONNX"
        )
    attributes = {
        "group": p["feature_group_count"],
        "strides": list(p["window_strides"]),
        "pads": _pads(p["padding"]),
        "dilations": list(p["rhs_dilation"]),
    }
    return _conv(w, w.full_first(x), kernel, (3, 2, 0, 1), out, attributes)


def _conv(
    w: Writer, x: Operand, kernel: Value, order: Any, out: Any, attributes: Any
) -> Value:
    if kernel.constant is None:
        weights = w.moved(w.full(kernel), kernel.shape, order)
        return w.map(w.g.add("Conv", x, weights, **attributes), out)
    weights = np.broadcast_to(kernel.constant, kernel.shape).transpose(order)
    return _layer(w, Layer(x, weights, None, attributes), out)


def _layer(w: Writer, layer: Layer, out: Any) -> Value:
    x, kernel, bias, attributes = layer
    operands = [x, kernel] if bias is None else [x, kernel, bias]
    return w.map(w.g.add("Conv", *operands, **attributes), out, made_by=layer)


def _affine(op: str) -> Any:
    """Writer of an operator that folds per-channel constants into a convolution.

    The original convolution is dropped from the model if nothing else reads it.
    """

    def write(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
        pairs = [xs] if op == "Sub" else [xs, xs[::-1]]
        for x, operand in pairs:
            layer, number = x.made_by, operand.constant
            per_channel = set(spread(operand.real, 4)[:-1]) <= {1}
            if isinstance(layer, Layer) and number is not None and per_channel:
                value = np.broadcast_to(number.reshape(-1), x.shape[-1:])
                bias = layer.bias
                if op == "Mul":
                    kernel = layer.kernel * value[:, None, None, None]
                    bias = None if bias is None else bias * value
                    return _layer(w, layer._replace(kernel=kernel, bias=bias), out)
                value = -value if op == "Sub" else value
                bias = value if bias is None else bias + value
                return _layer(w, layer._replace(bias=bias), out)
        return w.elementwise(lambda *x: w.g.add(op, *x), xs, out)

    return write


def _maximum(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    """Writes a max-pooling; a pooling of rows, then columns becomes a single one."""
    (x,), window = xs[:1], p["window_dimensions"]
    _check_window(p)
    pool = Pool(
        w.full_first(x),
        window[1:3],
        tuple(_pads(p["padding"][1:3])),
        p["window_strides"][1:3],
    )
    previous = x.made_by
    if isinstance(previous, Pool) and previous.window[1] == pool.window[0] == 1:
        pads = tuple(map(sum, zip(previous.pads, pool.pads, strict=True)))
        strides = previous.strides[0] * pool.strides[0], pool.strides[1]
        if pool.strides[0] == previous.strides[1] == 1:
            pool = Pool(previous.x, (previous.window[0], pool.window[1]), pads, strides)
    node = w.g.add(
        "MaxPool",
        pool.x,
        kernel_shape=list(pool.window),
        pads=list(pool.pads),
        strides=list(pool.strides),
    )
    return w.map(node, out, made_by=pool)


def _sum(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    window = p["window_dimensions"]
    _check_window(p)
    mean = w.g.add(
        "AveragePool",
        w.full_first(xs[0]),
        kernel_shape=list(window[1:3]),
        pads=_pads(p["padding"][1:3]),
        strides=list(p["window_strides"][1:3]),
        count_include_pad=1,
    )
    return w.map(w.g.add("Mul", mean, np.float32(math.prod(window))), out)


def _check_window(p: Any) -> None:
    window, dilations = (
        p["window_dimensions"],
        (*p["base_dilation"], *p["window_dilation"]),
    )
    if len(window) != 4 or (window[0], window[3]) != (1, 1) or set(dilations) != {1}:
        raise ValueError(
            "a window over axes other than H and W of [B, H, W, C], or a dilated "
            "window, cannot be written as ONNX"
        )


def _pads(pairs: Any) -> list[int]:
    (top, bottom), (left, right) = pairs
    return [top, left, bottom, right]


def _product(w: Writer, xs: list[Value], out: Any, p: Any) -> Value:
    """MatMul of [batch, rows, inner] and [batch, inner, columns]."""
    (a, b), ((ca, cb), (ba, bb)) = xs, p["dimension_numbers"]
    if b.constant is not None and len(b.shape) == 2 and len(a.shape) == 4:
        if tuple(ca) == (3,):  # a 1x1 convolution
            kernel = b if tuple(cb) == (0,) else _transposed(b)
            wide = Value((1, 1, *kernel.shape), b.dtype, kernel.real, kernel.last)
            plain = {
                "group": 1,
                "strides": [1, 1],
                "pads": [0] * 4,
                "dilations": [1, 1],
            }
            return _conv(w, w.full_first(a), wide, (3, 2, 0, 1), out, plain)
    free_a = [i for i in range(len(a.shape)) if i not in (*ca, *ba)]
    free_b = [i for i in range(len(b.shape)) if i not in (*cb, *bb)]

    def sides(v: Value, *groups: Any) -> tuple[Operand, list[int]]:
        order = [i for group in groups for i in group]
        x = w.moved(w.full(v), v.shape, order)
        shape = [math.prod(v.shape[i] for i in group) for group in groups]
        shape = shape if ba else shape[1:]
        return w.reshape(x, [v.shape[i] for i in order], shape), shape

    left, size = sides(a, ba, free_a, ca)
    right, other = sides(b, bb, cb, free_b)
    x = w.g.add("MatMul", left, right)
    return w.whole(w.reshape(x, (*size[:-1], other[-1]), out.shape), out)


def _transposed(v: Value) -> Value:
    assert v.constant is not None
    x = np.broadcast_to(v.constant, v.shape).T
    return Value(x.shape, v.dtype, x.shape, x)


def _quotient(w: Writer, xs: list[Value], out: Any, params: Any) -> Value:
    """Writes division by a constant as a product with its inverse, as XLA may do."""
    divisor = xs[1].constant
    if divisor is None or out.dtype.kind != "f" or not divisor.all():
        return w.elementwise(lambda *x: w.g.add("Div", *x), xs, out)
    reciprocal = np.asarray(1 / divisor, out.dtype)
    inverse = Value(xs[1].shape, out.dtype, xs[1].real, reciprocal)
    return TABLE["mul"](w, [xs[0], inverse], out, params)


TABLE: dict[str, Any] = {
    "conv_general_dilated": _convolution,
    "dot_general": _product,
    "reduce_window_max": _maximum,
    "reduce_window_sum": _sum,
    "add": _affine("Add"),
    "sub": _affine("Sub"),
    "mul": _affine("Mul"),
    "div": _quotient,
}
