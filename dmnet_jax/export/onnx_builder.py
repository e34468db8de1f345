"""An ONNX graph written node by node, and the layers a DMNet is made of in it.

Maps are NCHW here, as ONNX convolutions want them; weights come as the network has
them (HWIO) and are transposed on the way.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 18
_IR_VERSION = 9  # of ONNX 1.14, the first with all of opset 18's runtimes

Layer = dict[str, np.ndarray]
"""Of a convolution: "kernel" [k, k, C, D] with or without "bias" [D]."""

Value = str | np.ndarray | np.generic
"""The name of a node's output, or a constant."""


class Graph:
    """Collects nodes; every method that adds one returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: tuple[int, ...], dtype: Any) -> str:
        self._inputs.append(_typed(name, shape, dtype))
        return name

    def output(self, name: str, x: str, shape: tuple[int, ...], dtype: Any) -> None:
        self._nodes.append(helper.make_node("Identity", [x], [name]))
        self._outputs.append(_typed(name, shape, dtype))

    def add(self, op: str, *inputs: Value, **attributes: Any) -> str:
        """One node with one output."""
        return self._node(op, inputs, 1, attributes)[0]

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        return self._node("Split", (x, integers(sizes)), len(sizes), {"axis": axis})

    def top_k(self, x: str, k: int) -> str:
        """int64 [k]: indices of the largest of x [n], largest first."""
        return self._node("TopK", (x, integers([k])), 2, {"axis": 0})[1]

    def cast(self, x: str, dtype: Any) -> str:
        return self.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, integers(shape))

    def nhwc(self, x: str) -> str:
        return self.add("Transpose", x, perm=[0, 2, 3, 1])

    def nchw(self, x: str) -> str:
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def conv(
        self,
        x: str,
        layer: Layer,
        *,
        depthwise: bool = False,
        stride: int = 1,
        pads: list[tuple[int, int]] | None = None,
    ) -> str:
        """Convolution with layer["kernel"] [k, k, C, D], centred unless pads say so."""
        kernel = layer["kernel"]
        half = kernel.shape[0] // 2
        rows, columns = pads or [(half, half)] * 2
        inputs = [x, kernel.transpose(3, 2, 0, 1)]
        if "bias" in layer:
            inputs.append(layer["bias"])
        return self.add(
            "Conv",
            *inputs,
            group=kernel.shape[-1] if depthwise else 1,
            strides=[stride, stride],
            pads=[rows[0], columns[0], rows[1], columns[1]],
        )

    def relu6(self, x: str) -> str:
        return self.add("Clip", x, np.float32(0), np.float32(6))

    def max_pool_5x5(self, x: str) -> str:
        return self.add("MaxPool", x, kernel_shape=[5, 5], pads=[2, 2, 2, 2])

    def upsample_2x(self, x: str) -> str:
        """Bilinear with aligned corners."""
        scales = np.array([1, 1, 2, 2], np.float32)
        mode = {"coordinate_transformation_mode": "align_corners", "mode": "linear"}
        return self.add("Resize", x, "", scales, **mode)

    def enlarge(self, x: str, shape: tuple[int, ...]) -> str:
        """Bilinear with half-pixel centres to `shape` [1, C, h, w]."""
        mode = {"coordinate_transformation_mode": "half_pixel", "mode": "linear"}
        return self.add("Resize", x, "", "", integers(shape), **mode)

    def serialise(self, name: str) -> bytes:
        """The model, checked."""
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            self._outputs,
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="dmnet-jax",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _node(
        self, op: str, inputs: Any, outputs: int, attributes: dict[str, Any]
    ) -> list[str]:
        place = f"{op}_{len(self._nodes)}"
        names = [place] if outputs == 1 else [f"{place}_{i}" for i in range(outputs)]
        given = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self._nodes.append(helper.make_node(op, given, names, place, **attributes))
        return names

    def _constant(self, x: Any) -> str:
        """One initialiser for equal constants."""
        x = np.ascontiguousarray(x).reshape(np.shape(x))
        key = (x.dtype.str, x.shape, x.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(x, name)
        return self._constants[key].name


def integers(values: Any) -> np.ndarray:
    """What ONNX takes shapes, axes and indices in: int64."""
    return np.asarray(values, np.int64)


def _typed(name: str, shape: tuple[int, ...], dtype: Any) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
