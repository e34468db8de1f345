"""Export of the streaming step as OpenVINO IR, from its ONNX graph."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from dmnet_jax.streaming.runtimes import import_openvino, openvino_core


def convert(onnx_model: bytes) -> tuple[bytes, bytes]:
    """Returns the contents of `.xml` and `.bin` for a serialized ONNX model.

    Weights are float32. bfloat16 is not a property of the file but is selected when the
    model is compiled for a device.
    """
    openvino = import_openvino()
    model = openvino_core().read_model(onnx_model, b"")
    model = _with_inputs(openvino, model, onnx.load_model_from_string(onnx_model))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _with_inputs(openvino: Any, model: Any, source: onnx.ModelProto) -> Any:
    """Restores inputs that OpenVINO drops because nothing reads them.

    An example is `reset` of a network without a memory.
    """
    known = {p.output(0).get_any_name(): p for p in model.get_parameters()}
    parameters = []
    for given in source.graph.input:
        tensor = given.type.tensor_type
        if given.name not in known:
            shape = [axis.dim_value for axis in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            made = openvino.opset13.parameter(shape, dtype, name=given.name)
            made.output(0).tensor.set_names({given.name})
            known[given.name] = made
        parameters.append(known[given.name])
    if len(parameters) == len(model.get_parameters()):
        return model
    return openvino.Model(model.get_results(), parameters, model.get_friendly_name())
