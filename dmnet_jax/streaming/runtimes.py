"""Exported steps in ONNX Runtime or OpenVINO, wrapped as a `Program`.

The memory is a tuple of NumPy arrays. The slots of the global memory (55 MB at 512x640)
are updated in place: the graph reads them before it writes one, so input and output can
share a buffer and neither runtime makes a copy.
"""

import contextlib
import ctypes
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import RESET_ALL
from dmnet_jax.streaming.described import Description, Tensor, check_declared
from dmnet_jax.streaming.processor import INT8_IS_SLOW, computes_int8
from dmnet_jax.streaming.program import OUTPUTS, Labeled, Program

Tensors = dict[str, np.ndarray]
Infer = Callable[[Tensors, Tensors], Tensors]
"""(inputs, outputs to write in place) -> the other outputs, by name."""


def open_onnx(contents: dict[str, bytes], description: Description) -> Program:
    """Opens an ONNX model with ONNX Runtime on the CPU.

    Raises:
        ValueError: the model uses external weights or does not match the description.
    """
    import onnxruntime

    _check_self_contained(contents[".onnx"])
    session = onnxruntime.InferenceSession(
        contents[".onnx"],
        providers=["CPUExecutionProvider"],
        enable_fallback=0,  # the fallback prints a message and retries the same
    )
    check_declared(
        description, *map(_of_onnx, (session.get_inputs(), session.get_outputs()))
    )
    value = onnxruntime.OrtValue.ortvalue_from_numpy

    def infer(inputs: Tensors, in_place: Tensors) -> Tensors:
        binding = session.io_binding()
        for name, x in inputs.items():
            binding.bind_ortvalue_input(name, value(x))
        names = [tensor.name for tensor in description.outputs]
        for name in names:
            if name in in_place:
                binding.bind_ortvalue_output(name, value(in_place[name]))
            else:
                binding.bind_output(name)
        session.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        return {n: x.numpy() for n, x in outputs.items() if n not in in_place}

    return _program(description, infer)


def open_ir(contents: dict[str, bytes], description: Description) -> Program:
    """Opens an OpenVINO IR on the CPU, in the precision it was exported for.

    A bfloat16 program runs in float32, with a warning, if the processor does not
    support bfloat16. The unquantized operations of an int8 program run in bfloat16 if
    supported, otherwise in float32. A warning is issued where int8 may be slow.

    Raises:
        ValueError: the model does not match the description.
    """
    openvino = import_openvino()
    core = openvino_core()
    precision = "f32" if description.dtype == "fp32" or not has_bf16() else "bf16"
    if description.dtype == "bf16" and precision == "f32":
        warnings.warn(
            "this processor does not support bfloat16; OpenVINO runs the step in "
            "float32",
            stacklevel=2,
        )
    if description.dtype == "int8" and not computes_int8():
        warnings.warn(INT8_IS_SLOW, stacklevel=2)
    model = core.read_model(contents[".xml"], contents[".bin"])
    check_declared(description, *map(_of_ir, (model.inputs, model.outputs)))
    compiled = core.compile_model(
        model,
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"},
    )
    request, one_at_a_time = compiled.create_infer_request(), threading.Lock()

    def infer(inputs: Tensors, in_place: Tensors) -> Tensors:
        with one_at_a_time:
            for name, x in {**inputs, **in_place}.items():
                request.set_tensor(name, openvino.Tensor(x, shared_memory=True))
            request.infer()
            return {
                tensor.name: request.get_tensor(tensor.name).data.copy()
                for tensor in description.outputs
                if tensor.name not in in_place
            }

    return _program(description, infer)


def has_bf16() -> bool:
    """Returns whether OpenVINO can compute in bfloat16 on this machine's processor."""
    core = openvino_core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def openvino_core() -> Any:
    """Returns this process's OpenVINO core, with its CPU device loaded."""
    core = import_openvino().Core()
    with kept_signal_stack():
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return core


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restores the stack on which the calling thread handles signals.

    With its CPU device, an OpenVINO core gives the thread another stack, and returns to
    the one before when it ends. If an older core ends first, the younger one returns to
    a stack that no longer exists, and the next Ctrl-C kills the process (OpenVINO
    2026.4.1, Linux).
    """
    if sys.platform != "linux":
        yield
        return
    # A `stack_t`: pointer, int, size.
    library, stack = ctypes.CDLL(None), (ctypes.c_void_p * 3)()
    library.sigaltstack(None, stack)
    try:
        yield
    finally:
        library.sigaltstack(stack, None)


def import_openvino() -> Any:
    """Imports OpenVINO with its telemetry disabled.

    On import, OpenVINO sends usage data over the network if its telemetry package is
    present. It works without that package.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # pyright: ignore[reportMissingImports]  (an extra)

    return openvino


def empty_memory(description: Description) -> Callable[[Array], Any]:
    """Returns a function from a PRNG key to an exported step's empty memory.

    Args:
        description: description of the step.
    """

    @jax.jit
    def init(key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, description.interface.streams)
        raw = jax.random.key_data(jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys))
        return tuple(
            raw
            if leaf.name == ".key" and leaf.dtype == "uint32"  # bits of a PRNG key
            else jnp.full(
                leaf.shape,
                mem.EMPTY if leaf.name.endswith(".stamp") else 0,
                leaf.dtype,
            )
            for leaf in description.memory
        )

    return init


def _check_self_contained(content: bytes) -> None:
    """Rejects external weight files, which the checksum does not cover."""
    import onnx

    def visit(graph: onnx.GraphProto) -> None:
        tensors = [*graph.initializer]
        for sparse in graph.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
        for node in graph.node:
            visit_attributes(node, tensors)
        for tensor in tensors:
            outside = tensor.data_location == onnx.TensorProto.EXTERNAL
            if outside or tensor.external_data:
                raise ValueError(
                    f"its tensor {tensor.name[:80]!r} is stored in an external file; "
                    "export the step again to get a single file"
                )

    def visit_attributes(node: onnx.NodeProto, tensors: list[onnx.TensorProto]) -> None:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                tensors += [sparse.values, sparse.indices]
            for graph in (attribute.g, *attribute.graphs):
                visit(graph)

    model = onnx.load_model_from_string(content)
    if model.functions or model.training_info:
        raise ValueError(
            "it contains functions or training information, which an exported step "
            "never does"
        )
    visit(model.graph)


_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_IR_TYPES = {"f32": "float32", "i32": "int32", "u8": "uint8", "boolean": "bool"}


def _of_onnx(arguments: Sequence[Any]) -> list[Tensor]:
    return [
        Tensor(x.name, tuple(x.shape), _ONNX_TYPES.get(str(x.type), str(x.type)))
        for x in arguments
    ]


def _of_ir(ports: Sequence[Any]) -> list[Tensor]:
    kinds = [str(port.get_element_type().get_type_name()) for port in ports]
    return [
        Tensor(port.get_any_name(), tuple(port.get_shape()), _IR_TYPES.get(kind, kind))
        for port, kind in zip(ports, kinds, strict=True)
    ]


def step_inputs(description: Description) -> Callable[..., Tensors]:
    """Returns a function (memory, frames, active, reset) -> named runtime inputs.

    Args:
        description: description of the step.
    """
    names = [leaf.name for leaf in description.memory]
    shapes = {tensor.name: tensor.shape for tensor in description.inputs}

    @jax.jit
    def draw(key: Array, frame: Array) -> Array:
        """Draws the numbers that `memory.read_uniform` draws for this frame."""
        return jax.random.uniform(jax.random.fold_in(key, frame), shapes["draw"])

    def inputs_of(memory: Any, frames: Any, active: Any, reset: Any) -> Tensors:
        leaves = dict(zip(names, memory, strict=True))
        key = leaves.pop(".key", None)  # present if reads from the memory are random
        inputs = {f"memory{name}": x for name, x in leaves.items()}
        inputs |= {"frames": frames, "active": active, "reset": reset}
        if "draw" in shapes:
            frame = 0 if reset[0] == RESET_ALL else leaves[".frame"][0]
            inputs["draw"] = np.asarray(draw(key[0], frame))
        # The runtimes share these buffers, so they must be contiguous and writable.
        return {n: np.require(x, requirements=["C", "W"]) for n, x in inputs.items()}

    return inputs_of


def _program(description: Description, infer: Infer) -> Program:
    names = [leaf.name for leaf in description.memory]
    init, inputs_of = empty_memory(description), step_inputs(description)
    in_place = [name for name in names if name.startswith(".global_.slots")]

    def step(memory: Any, frames: Any, active: Any, reset: Any) -> tuple[Any, Labeled]:
        inputs = inputs_of(memory, frames, active, reset)
        unchanged = {f"next_memory{n}": inputs[f"memory{n}"] for n in in_place}
        outputs = infer(inputs, unchanged) | unchanged
        # The step does not change the PRNG key, so the key is not an output.
        before = dict(zip(names, memory, strict=True))
        after = {n: outputs.get(f"next_memory{n}", x) for n, x in before.items()}
        labels: Any = {name: outputs[name] for name in OUTPUTS}
        labeled = Labeled(probabilities=None, **labels)
        return tuple(after.values()), labeled

    return Program(
        description.interface,
        lambda key: tuple(map(np.array, init(key))),
        step,
        memories=description.memories,
    )
