"""Values of a graph that is being written: constants, and tensors in two layouts.

JAX's maps are [B, H, W, C], and ONNX convolutions want [B, C, H, W]. A map stays
channels first from one convolution to the next, and is transposed when something reads
it that needs the other layout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmnet_jax.export.onnx_builder import Graph, Operand, integers

Shape = tuple[int, ...]

TO_FIRST = (0, 3, 1, 2)
TO_LAST = (0, 2, 3, 1)


@dataclass
class Value:
    """An array of the JAX function.

    Attributes:
        shape: as JAX has it.
        dtype: the same.
        real: shape of the tensor, in JAX's order of axes; it broadcasts to `shape`.
        last: the tensor in JAX's order of axes.
        first: the tensor with the last of four axes second. One of the two is given.
        made_by: the convolution or pooling that made it, which the next operator may
            become part of.
    """

    shape: Shape
    dtype: Any
    real: Shape
    last: Operand | None = None
    first: Operand | None = None
    made_by: Any = None

    @property
    def constant(self) -> np.ndarray | None:
        return self.last if isinstance(self.last, np.ndarray) else None

    @property
    def is_map(self) -> bool:
        """Whether it is computed and there channels first."""
        return self.first is not None and self.constant is None


def constant(x: Any) -> Value:
    """Of an array, without the axes along which all of it is the same."""
    full = small = np.asarray(x)
    for axis in range(full.ndim):
        one = small.take([0], axis) if small.shape[axis] > 1 else small
        if small.shape[axis] > 1 and (small == one).all():
            small = one
    if small.size == 1:
        small = small.reshape(())
    return Value(full.shape, full.dtype, small.shape, small)


def spread(real: Shape, rank: int) -> Shape:
    """A shape that broadcasts, with all axes."""
    return (1,) * (rank - len(real)) + tuple(real)


class Writer:
    """Writes values into a graph, in the layout that is asked for."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph

    def last(self, v: Value) -> Operand:
        """The tensor of shape `v.real`."""
        if v.last is None:
            assert v.first is not None
            v.last = self.moved(v.first, [v.real[i] for i in TO_FIRST], TO_LAST)
        return v.last

    def full(self, v: Value) -> Operand:
        """The tensor of shape `v.shape`."""
        return self._expanded(self.last(v), v.real, v.shape)

    def first(self, v: Value) -> Operand:
        """The tensor of shape `v.real`, channels first; of one number, as it is."""
        if v.first is None:
            assert v.last is not None
            if math.prod(v.real) == 1:
                return v.last
            real = spread(v.real, 4)
            v.last = self.reshape(v.last, v.real, real)
            v.first, v.real = self.moved(v.last, real, TO_FIRST), real
        return v.first

    def full_first(self, v: Value) -> Operand:
        """The tensor of shape `v.shape`, channels first."""
        x, real = self.first(v), tuple(spread(v.real, 4)[i] for i in TO_FIRST)
        real = v.real if x is v.last else real
        return self._expanded(x, real, tuple(v.shape[i] for i in TO_FIRST))

    def reshape(self, x: Operand, now: Sequence[int], shape: Sequence[int]) -> Operand:
        """Of a tensor that has the shape `now`."""
        if isinstance(x, (np.ndarray, np.generic)):
            return np.reshape(x, shape)
        return self.g.reshape(x, now, shape)

    def reshaped(self, v: Value, shape: Sequence[int]) -> Operand:
        """The whole tensor in another shape."""
        return self.reshape(self.full(v), v.shape, shape)

    def moved(self, x: Operand, shape: Sequence[int], order: Sequence[int]) -> Operand:
        """A tensor of that shape transposed, which a reshape does for axes of one."""
        if isinstance(x, (np.ndarray, np.generic)):
            return np.transpose(np.reshape(x, shape), order)
        wide = [axis for axis in order if shape[axis] > 1]
        if list(order) == list(range(len(order))):
            return x
        if wide == sorted(wide):
            return self.g.reshape(x, shape, [shape[axis] for axis in order])
        return self.g.add("Transpose", x, perm=list(order))

    def _expanded(self, x: Operand, real: Shape, shape: Shape) -> Operand:
        if tuple(real) == tuple(shape):
            return x
        if isinstance(x, (np.ndarray, np.generic)):
            return np.broadcast_to(x, shape)
        if math.prod(shape) == 1:
            return self.g.reshape(x, real, shape)
        return self.g.add("Expand", x, integers(shape))

    # ---- results ----

    def whole(self, x: Operand, aval: Any) -> Value:
        """A tensor of the array's own shape."""
        return Value(aval.shape, aval.dtype, aval.shape, x)

    def map(self, x: Operand, aval: Any, **more: Any) -> Value:
        """The same, channels first."""
        return Value(aval.shape, aval.dtype, aval.shape, None, x, **more)

    def elementwise(self, op: Any, xs: Sequence[Value], aval: Any) -> Value:
        """`op` of broadcastable tensors, in the layout that one of them has."""
        rank = len(aval.shape)
        if rank == 4 and any(x.is_map for x in xs):
            given = [self.first(x) for x in xs]
            real = np.broadcast_shapes(*(spread(x.real, 4) for x in xs))
            return Value(aval.shape, aval.dtype, real, None, op(*given))
        given = [self.last(x) for x in xs]
        real = np.broadcast_shapes(*(x.real for x in xs))
        return Value(aval.shape, aval.dtype, real, op(*given))

    def axes(self, v: Value, axes: Sequence[int]) -> tuple[Operand, list[int]]:
        """The whole tensor as it is, and where in it these axes are."""
        if v.is_map:
            return self.full_first(v), [TO_FIRST.index(axis) for axis in axes]
        return self.full(v), list(axes)

    def like(self, x: Operand, v: Value, aval: Any) -> Value:
        """A tensor in the layout in which `axes` gave that of `v`."""
        if v.is_map:
            return self.map(x, aval)
        return self.whole(x, aval)
