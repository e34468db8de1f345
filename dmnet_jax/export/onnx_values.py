"""Values of an ONNX graph under construction: constants, and tensors in two layouts.

Maps are [B, H, W, C] in JAX, but ONNX convolutions need [B, C, H, W]. A map stays
channels-first from one convolution to the next and is transposed only when an operation
needs the other layout.
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
        shape: shape in JAX.
        dtype: dtype in JAX.
        real: shape of the tensor, in JAX's order of axes; it broadcasts to `shape`.
        last: the tensor with channels last, in JAX's order of axes.
        first: the tensor with channels first. At least one of the two is set.
        made_by: the convolution or pooling that produced it, into which the next
            operation may be folded.
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
        """Whether the value is computed and available channels-first."""
        return self.first is not None and self.constant is None


def constant(x: Any) -> Value:
    """Creates a constant, reduced along axes on which it does not vary."""
    full = small = np.asarray(x)
    for axis in range(full.ndim):
        one = small.take([0], axis) if small.shape[axis] > 1 else small
        if small.shape[axis] > 1 and (small == one).all():
            small = one
    if small.size == 1:
        small = small.reshape(())
    return Value(full.shape, full.dtype, small.shape, small)


def spread(real: Shape, rank: int) -> Shape:
    """Prepends axes of size 1 to reach `rank`."""
    return (1,) * (rank - len(real)) + tuple(real)


class Writer:
    """Writes values into a graph, in the requested layout."""

    def __init__(self, graph: Graph) -> None:
        self.g = graph

    def last(self, v: Value) -> Operand:
        """Returns the tensor of shape `v.real`."""
        if v.last is None:
            assert v.first is not None
            v.last = self.moved(v.first, [v.real[i] for i in TO_FIRST], TO_LAST)
        return v.last

    def full(self, v: Value) -> Operand:
        """Returns the tensor expanded to `v.shape`."""
        return self._expanded(self.last(v), v.real, v.shape)

    def first(self, v: Value) -> Operand:
        """Returns the tensor of shape `v.real`, channels first; scalars unchanged."""
        if v.first is None:
            assert v.last is not None
            if math.prod(v.real) == 1:
                return v.last
            real = spread(v.real, 4)
            v.last = self.reshape(v.last, v.real, real)
            v.first, v.real = self.moved(v.last, real, TO_FIRST), real
        return v.first

    def full_first(self, v: Value) -> Operand:
        """Returns the tensor expanded to `v.shape`, channels first."""
        x, real = self.first(v), tuple(spread(v.real, 4)[i] for i in TO_FIRST)
        real = v.real if x is v.last else real
        return self._expanded(x, real, tuple(v.shape[i] for i in TO_FIRST))

    def reshape(
        self, x: Operand, current: Sequence[int], shape: Sequence[int]
    ) -> Operand:
        """Reshapes a tensor of shape `current`."""
        if isinstance(x, (np.ndarray, np.generic)):
            return np.reshape(x, shape)
        return self.g.reshape(x, current, shape)

    def reshaped(self, v: Value, shape: Sequence[int]) -> Operand:
        """Returns the full tensor in another shape."""
        return self.reshape(self.full(v), v.shape, shape)

    def moved(self, x: Operand, shape: Sequence[int], order: Sequence[int]) -> Operand:
        """Transposes a tensor; uses a reshape if only axes of size 1 move."""
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
        """Wraps a tensor of the array's shape."""
        return Value(aval.shape, aval.dtype, aval.shape, x)

    def map(self, x: Operand, aval: Any, **more: Any) -> Value:
        """Wraps a channels-first tensor of the array's shape."""
        return Value(aval.shape, aval.dtype, aval.shape, None, x, **more)

    def elementwise(self, op: Any, xs: Sequence[Value], aval: Any) -> Value:
        """Applies `op` to broadcastable tensors, channels-first if one of them is."""
        rank = len(aval.shape)
        if rank == 4 and any(x.is_map for x in xs):
            tensors = [self.first(x) for x in xs]
            real = np.broadcast_shapes(*(spread(x.real, 4) for x in xs))
            return Value(aval.shape, aval.dtype, real, None, op(*tensors))
        tensors = [self.last(x) for x in xs]
        real = np.broadcast_shapes(*(x.real for x in xs))
        return Value(aval.shape, aval.dtype, real, op(*tensors))

    def axes(self, v: Value, axes: Sequence[int]) -> tuple[Operand, list[int]]:
        """Returns the full tensor in its current layout, and the axes there."""
        if v.is_map:
            return self.full_first(v), [TO_FIRST.index(axis) for axis in axes]
        return self.full(v), list(axes)

    def like(self, x: Operand, v: Value, aval: Any) -> Value:
        """Wraps a tensor in the layout in which `axes` returned that of `v`."""
        if v.is_map:
            return self.map(x, aval)
        return self.whole(x, aval)
