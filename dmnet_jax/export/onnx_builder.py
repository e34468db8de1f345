"""Builder for ONNX graphs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 18
_IR_VERSION = 9  # of ONNX 1.14; all runtimes with opset 18 read it

Operand = str | np.ndarray | np.generic
"""The name of a node's output, or a constant array."""


class Graph:
    """Collects nodes. Methods that add a node return the name of its output.

    Equal nodes are added once, and nodes that no output depends on are dropped by
    `serialize`.
    """

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._node_outputs: dict[Any, list[str]] = {}
        self._sources: dict[str, tuple[str, tuple[int, ...]]] = {}
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> str:
        self._inputs.append(_typed(name, shape, dtype))
        return name

    def output(self, name: str, x: Operand, shape: Sequence[int], dtype: Any) -> None:
        if isinstance(x, str):
            node = helper.make_node("Identity", [x], [name])
        else:
            value = numpy_helper.from_array(np.array(x))
            node = helper.make_node("Constant", [], [name], value=value)
        self._nodes.append(node)
        self._outputs.append(_typed(name, shape, dtype))

    def add(self, op: str, *inputs: Operand, **attributes: Any) -> str:
        """Adds a node with one output."""
        return self.add_all(op, inputs, 1, **attributes)[0]

    def add_all(
        self, op: str, inputs: Sequence[Operand], outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node with several outputs."""
        operands = [self._name(x) for x in inputs]
        key = op, tuple(operands), outputs, repr(sorted(attributes.items()))
        if key not in self._node_outputs:
            place = f"{op}_{len(self._nodes)}"
            names = [f"{place}_{i}" for i in range(outputs)] if outputs > 1 else [place]
            node = helper.make_node(op, operands, names, place, **attributes)
            self._nodes.append(node)
            self._node_outputs[key] = names
        return self._node_outputs[key]

    def cast(self, x: Operand, dtype: Any) -> str:
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x: str, current: Sequence[int], shape: Sequence[int]) -> str:
        """Reshapes a tensor of shape `current`; chained reshapes are merged."""
        source, current = self._sources.get(x, (x, tuple(current)))
        if current == tuple(shape):
            return source
        result = self.add("Reshape", source, integers(shape))
        self._sources[result] = source, current
        return result

    def serialize(self, name: str) -> bytes:
        """Checks the model and returns it in serialized form."""
        needed, nodes = {x.name for x in self._outputs}, []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.append(node)
        constants = [x for x in self._constants.values() if x.name in needed]
        graph = helper.make_graph(
            nodes[::-1], name, self._inputs, self._outputs, constants
        )
        model = helper.make_model(
            graph,
            producer_name="dmnet-jax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _name(self, x: Operand) -> str:
        """Returns the name of an operand; equal constants share an initializer."""
        if isinstance(x, str):
            return x
        x = np.ascontiguousarray(x).reshape(np.shape(x))
        key = (x.dtype.str, x.shape, x.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(x, name)
        return self._constants[key].name


def integers(values: Any) -> np.ndarray:
    """Converts shapes, axes or indices to int64, as ONNX requires."""
    return np.asarray(values, np.int64)


def _typed(name: str, shape: Sequence[int], dtype: Any) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
