"""An exported step in ONNX Runtime or OpenVINO, behind the interface of `Program`.

The memory is a tuple of NumPy arrays. The global memory's slots (55 MB at 512x640) are
written in place: the graph reads them before it writes one, so the output may be the
input's own buffer, and both runtimes then copy nothing.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import RESET_ALL
from dmnet_jax.streaming.program import OUTPUTS, Interface, Labelled, Program

Tensors = dict[str, np.ndarray]
Infer = Callable[[Tensors, Tensors], Tensors]
"""(inputs, outputs that are to be written in place) -> the other outputs, by name."""


def open_onnx(
    contents: dict[str, bytes], interface: Interface, body: dict[str, Any]
) -> Program:
    """A program that ONNX Runtime runs on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        contents[".onnx"], providers=["CPUExecutionProvider"]
    )
    value = onnxruntime.OrtValue.ortvalue_from_numpy

    def infer(inputs: Tensors, in_place: Tensors) -> Tensors:
        binding = session.io_binding()
        for name, x in inputs.items():
            binding.bind_ortvalue_input(name, value(x))
        names = [tensor["name"] for tensor in body["outputs"]]
        for name in names:
            if name in in_place:
                binding.bind_ortvalue_output(name, value(in_place[name]))
            else:
                binding.bind_output(name)
        session.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        return {n: x.numpy() for n, x in outputs.items() if n not in in_place}

    return _program(interface, body, infer)


def open_ir(
    contents: dict[str, bytes], interface: Interface, body: dict[str, Any]
) -> Program:
    """A program that OpenVINO runs on the CPU, in the precision it was exported for.

    Where the processor has no bfloat16 that is float32, and a warning says so.
    """
    openvino = import_openvino()
    core = openvino.Core()
    precision = {"fp32": "f32", "bf16": "bf16"}[body["dtype"]]
    if precision == "bf16" and not has_bf16():
        warnings.warn(
            "this processor has no bfloat16; OpenVINO runs the step in float32",
            stacklevel=2,
        )
        precision = "f32"
    compiled = core.compile_model(
        core.read_model(contents[".xml"], contents[".bin"]),
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
                tensor["name"]: request.get_tensor(tensor["name"]).data.copy()
                for tensor in body["outputs"]
                if tensor["name"] not in in_place
            }

    return _program(interface, body, infer)


def has_bf16() -> bool:
    """Whether OpenVINO can compute in bfloat16 on this machine's processor."""
    core = import_openvino().Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> Any:
    """OpenVINO without its telemetry.

    On import it reports its use to its makers over the network, and does without the
    package for that where there is none.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # pyright: ignore[reportMissingImports]  (an extra)

    return openvino


def empty_memory(body: dict[str, Any], streams: int) -> Callable[[Array], Any]:
    """The function of a PRNG key that gives an exported step's empty memory.

    Args:
        body: of the artefact; "memory" says what its leaves are.
        streams: B.
    """

    @jax.jit
    def init(key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, streams)
        raw = jax.random.key_data(jax.vmap(lambda k: jax.random.fold_in(k, 0))(keys))
        return tuple(
            raw
            if leaf["name"] == ".key"
            else jnp.full(
                leaf["shape"],
                mem.EMPTY if leaf["name"].endswith(".stamp") else 0,
                leaf["dtype"],
            )
            for leaf in body["memory"]
        )

    return init


def _program(interface: Interface, body: dict[str, Any], infer: Infer) -> Program:
    names = [leaf["name"] for leaf in body["memory"]]
    init = empty_memory(body, interface.streams)
    shapes = {tensor["name"]: tensor["shape"] for tensor in body["inputs"]}
    in_place = [name for name in names if name.startswith(".global_.slots")]

    @jax.jit
    def draw(key: Array, frame: Array) -> Array:
        """What `memory.read_uniform` draws for this frame."""
        return jax.random.uniform(jax.random.fold_in(key, frame), shapes["draw"])

    def step(memory: Any, frames: Any, active: Any, reset: Any) -> tuple[Any, Labelled]:
        held = dict(zip(names, memory, strict=True))
        key = held.pop(".key")
        inputs = {f"memory{name}": x for name, x in held.items()}
        inputs |= {"frames": frames, "active": active, "reset": reset}
        if "draw" in shapes:
            frame = 0 if reset[0] == RESET_ALL else held[".frame"][0]
            inputs["draw"] = np.asarray(draw(key[0], frame))
        # As the runtimes want them, which share the arrays.
        inputs = {n: np.require(x, requirements=["C", "W"]) for n, x in inputs.items()}
        kept = {f"next_memory{n}": inputs[f"memory{n}"] for n in in_place}
        outputs = infer(inputs, kept) | kept
        after = {name: outputs[f"next_memory{name}"] for name in held} | {".key": key}
        given: Any = {name: outputs[name] for name in OUTPUTS}
        labelled = Labelled(probabilities=None, **given)
        return tuple(after[name] for name in names), labelled

    return Program(interface, lambda key: tuple(map(np.array, init(key))), step)
