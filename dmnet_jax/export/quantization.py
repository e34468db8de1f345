"""Post-training int8 quantization of a step's OpenVINO model with NNCF.

Quantized are the expensive operations: layers (convolutions and matrix products with
weights) and the additions, poolings and resizes between them. All others keep their
precision: the first layer of each path from an input, scores, softmax and attention,
gates, counters and ring writes.
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
from dmnet_jax.streaming.runtimes import (
    Tensors,
    import_openvino,
    kept_signal_stack,
    openvino_core,
)

_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
# Operations between layers. Those that keep the range of their input share its range.
_BETWEEN = {"Add", "Clamp", "Minimum", "Maximum", "Relu", "MaxPool", "Interpolate"}
_BETWEEN |= {"Transpose", "Reshape"}

FAST_BIAS_CORRECTION = False
"""NNCF's fast method takes a fifth of the time, but twice as many labels differ."""

RANKED_ON = 6
"""Number of inputs on which layers are ranked."""


def import_nncf() -> Any:
    """Imports NNCF with telemetry disabled, and logs only errors."""
    import_openvino()
    import nncf  # pyright: ignore[reportMissingImports]  (an extra)

    nncf.set_log_level(logging.ERROR)
    return nncf


def read_model(contents: dict[str, bytes]) -> Any:
    """Reads a model from the contents of `.xml` and `.bin`, and folds constants.

    NNCF recognizes weights and biases only as plain constants. Without folding, it
    misses reshaped depthwise kernels and biases, and 1.9 times as many labels differ.
    """
    core = openvino_core()
    from openvino.passes import (  # pyright: ignore[reportMissingImports]
        ConstantFolding,
        Manager,
    )

    model = core.read_model(contents[".xml"], contents[".bin"])
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)
    return model


def quantized(
    contents: dict[str, bytes], inputs: Rolled, kept: Sequence[str] = ()
) -> tuple[Any, dict[str, bytes]]:
    """Quantizes a model; returns the int8 model and its file contents by suffix.

    Args:
        contents: file contents of the float32 model, by suffix.
        inputs: calibration inputs.
        kept: names of additional layers that keep their precision.
    """
    nncf = import_nncf()
    model = read_model(contents)
    scope = nncf.IgnoredScope(names=[*precise(model), *kept], validate=False)
    # NNCF and its progress bars write to standard output.
    with contextlib.redirect_stdout(sys.stderr), kept_signal_stack():
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
    """Returns the names of operations that are not quantized.

    Args:
        model: a model with folded constants.
    """
    kept = []
    constant: set[str] = set()
    after_layers: set[str] = set()  # a layer is upstream
    of_layers: set[str] = set()  # layers, and operations of `_BETWEEN` on layers only
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
                kept.append(name)  # the first layer of a path
        elif live and kind in _BETWEEN and of_layers.issuperset(live):
            of_layers.add(name)
        elif kind not in ("Parameter", "Result"):
            kept.append(name)
    return kept


def layers(model: Any) -> list[str]:
    """Returns the names of the layers of a quantized model that run in int8."""
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in _LAYERS
        and _source(operation, 0).get_type_name() == "FakeQuantize"
    ]


def ranked(
    contents: dict[str, bytes], model: Any, inputs: Iterable[Tensors]
) -> list[str]:
    """Ranks layers by how much the labels improve without quantizing a layer's input.

    Args:
        contents: file contents of the float32 model, by suffix.
        model: the quantized model.
        inputs: inputs on which to compare labels; copies of all are held in memory.

    Returns:
        Names of layers, most sensitive first.
    """
    core = openvino_core()
    given = [{n: x.copy() for n, x in tensors.items()} for tensors in inputs]

    def labels(model: Any) -> np.ndarray:
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        request, found = compiled.create_infer_request(), []
        for tensors in given:
            request.infer(tensors)
            found.append(request.get_tensor("labels").data.copy())
        return np.stack(found)

    reference = labels(core.read_model(contents[".xml"], contents[".bin"]))
    differ = {}
    for name in layers(model):
        changed = model.clone()
        (layer,) = (x for x in changed.get_ops() if x.get_friendly_name() == name)
        layer.input(0).replace_source_output(_source(layer, 0).input_value(0))
        differ[name] = float((labels(changed) != reference).mean())
    return sorted(differ, key=lambda name: differ[name])


def _source(operation: Any, port: int) -> Any:
    return operation.input_value(port).get_node()
