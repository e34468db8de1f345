"""The streaming step as OpenVINO IR, from its ONNX graph."""

from pathlib import Path
from tempfile import TemporaryDirectory

from dmnet_jax.streaming.runtimes import import_openvino


def convert(onnx_model: bytes) -> tuple[bytes, bytes]:
    """`.xml` and `.bin` of a serialised ONNX model, with float32 weights.

    bfloat16 is not a matter of the file: it is the precision that the file is
    compiled for where it runs.
    """
    openvino = import_openvino()
    model = openvino.Core().read_model(onnx_model, b"")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()
