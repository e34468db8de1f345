"""Post-training quantization of a step's OpenVINO model to int8, by NNCF.

What costs time is quantized: layers (convolutions and products with weights) and the
sums, pools and resizings between them. The rest keeps its precision: the first layer of
a path, which sees the frame; scores, softmax and attention; gates, counters and the
rings' writes.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dmnet_jax.export.calibration import Rolled
from dmnet_jax.streaming.runtimes import Tensors, import_openvino

_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
# Between layers; what they do not change the range of needs no range of its own.
_BETWEEN = {"Add", "Clamp", "Minimum", "Maximum", "Relu", "MaxPool", "Interpolate"}
_BETWEEN |= {"Transpose", "Reshape"}

FAST_BIAS_CORRECTION = False
"""NNCF's fast form takes a fifth of the time, and twice as many labels differ."""

RANKED_ON = 6
"""Inputs on which layers are ranked."""


def import_nncf() -> Any:
    """NNCF without its telemetry, which is OpenVINO's, and with errors alone told."""
    import_openvino()
    import nncf  # pyright: ignore[reportMissingImports]  (an extra)

    nncf.set_log_level(logging.ERROR)
    return nncf


def read_model(contents: dict[str, bytes]) -> Any:
    """The model of `.xml` and `.bin`, with all that is constant computed.

    NNCF knows weights and biases only as plain constants: a depthwise kernel or a bias
    that is reshaped on the way is not seen, and 1.9 times as many labels differ.
    """
    openvino = import_openvino()
    from openvino.passes import (  # pyright: ignore[reportMissingImports]
        ConstantFolding,
        Manager,
    )

    model = openvino.Core().read_model(contents[".xml"], contents[".bin"])
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def quantized(
    contents: dict[str, bytes], inputs: Rolled, kept: Sequence[str] = ()
) -> tuple[Any, dict[str, bytes]]:
    """The int8 model, and its files by suffix.

    Args:
        contents: of the float32 model.
        inputs: what activations are measured on.
        kept: names of layers that are to keep their precision, beside the usual.
    """
    nncf = import_nncf()
    model = read_model(contents)
    scope = nncf.IgnoredScope(names=[*precise(model), *kept], validate=False)
    # NNCF and its progress bars write to standard output.
    with contextlib.redirect_stdout(sys.stderr):
        model = nncf.quantize(
            model,
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            fast_bias_correction=FAST_BIAS_CORRECTION,
            ignored_scope=scope,
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        import_openvino().save_model(model, path, compress_to_fp16=False)
        files = {".xml": path, ".bin": path.with_suffix(".bin")}
        return model, {suffix: file.read_bytes() for suffix, file in files.items()}


def precise(model: Any) -> list[str]:
    """Names of operations that are not quantized.

    Args:
        model: with constants folded.
    """
    kept = []
    constant: set[str] = set()
    after_layers: set[str] = set()  # something of a layer is upstream
    of_layers: set[str] = set()  # sums, pools and resizings of layers alone
    for operation in model.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        sources = [x.get_node().get_friendly_name() for x in operation.input_values()]
        live = [source for source in sources if source not in constant]
        if kind == "Constant" or (sources and not live):
            constant.add(name)
            continue
        is_layer = kind in _LAYERS and len(live) == 1
        if is_layer or after_layers.intersection(live):
            after_layers.add(name)
        if is_layer:
            of_layers.add(name)
            if not after_layers.intersection(live):
                kept.append(name)  # a first one
        elif live and kind in _BETWEEN and of_layers.issuperset(live):
            of_layers.add(name)
        elif kind not in ("Parameter", "Result"):
            kept.append(name)
    return kept


def layers(model: Any) -> list[str]:
    """Names of the layers of a quantized model that compute in int8."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in _LAYERS
        and _source(operation, 0).get_type_name() == "FakeQuantize"
    ]


def ranked(
    contents: dict[str, bytes], model: Any, inputs: Iterable[Tensors]
) -> list[str]:
    """Layers by what the labels gain if a layer's input is not rounded, most first.

    Args:
        contents: of the float32 model.
        model: the quantized one.
        inputs: some to compare labels on; they are kept.
    """
    core = import_openvino().Core()
    given = [{n: x.copy() for n, x in tensors.items()} for tensors in inputs]

    def labels(model: Any) -> np.ndarray:
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request, found = compiled.create_infer_request(), []
        for tensors in given:
            request.infer(tensors)
            found.append(request.get_tensor("labels").data.copy())
        return np.stack(found)

    wanted = labels(core.read_model(contents[".xml"], contents[".bin"]))
    differ = {}
    for name in layers(model):
        changed = model.clone()
        (layer,) = (x for x in changed.get_ops() if x.get_friendly_name() == name)
        layer.input(0).replace_source_output(_source(layer, 0).input_value(0))
        differ[name] = float((labels(changed) != wanted).mean())
    return sorted(differ, key=lambda name: differ[name])


def _source(operation: Any, port: int) -> Any:
    return operation.input_value(port).get_node()
