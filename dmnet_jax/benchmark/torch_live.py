# pyright: reportMissingImports=false
"""Streaming steps of the PyTorch version, for speed comparison only (extra `peers`).

The runtimes are PyTorch eager, PyTorch compiled, and the authors' method, which encodes
all nine frames again. ONNX Runtime and OpenVINO run PyTorch's export on the CPU. All
have the same memories: features of the last frames, keys and values of admitted frames.
The memories are on the host, or on the GPU for PyTorch with CUDA. Norms are folded, and
maps are channels-last if the runtime allows it.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import Tensor, nn

from dmnet_jax import machine
from dmnet_jax.benchmark.live_case import (
    CHECKED_FRAMES,
    MAX_SIMILARITY,
    LiveCase,
    checked_scene,
    differences,
    frame_source,
    scenes,
    stack_outputs,
    time_steps,
)
from dmnet_jax.benchmark.torch_dmnet import DEVICE, TorchDMNet
from dmnet_jax.streaming.runtimes import openvino_core
from dmnet_jax.weights.layout import unflatten

# The paper's tau and n, and our default size of the global memory.
LOCAL, READS, GLOBAL = 4, 4, 225

PYTORCH = ("torch", "torch.compile", "authors")

Call: TypeAlias = Callable[..., Any]
Arrays: TypeAlias = Sequence[Any]  # NumPy arrays, or tensors for `PYTORCH`


class CachedStep(nn.Module):
    """A step that caches features of earlier frames.

    Takes a frame uint8 [1, H, W, 3], the older tops [4, 256, h, w], the keys
    [4, 64, h, w] and values [4, 128, h, w] that were read, and the top admitted last
    [1, 256, h, w]. Returns labels, top, confidence and distance.
    """

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        older, keys, values, reference = memories
        features = self.network.encode(frame, train=False)
        stored = keys[None], values[None]
        logits = self.network.decode(features, list(older.split(1)), stored)
        return _outputs(logits, features[-1], reference)


class KeyValueStep(nn.Module):
    """Computes key and value from the top of an admitted frame."""

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, top: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.global_key_value(top)


class ReencodingStep(nn.Module):
    """The authors' method: earlier frames are encoded again in every step.

    Like `CachedStep`, but takes the older frames and the frames read from the global
    memory, uint8 [4, H, W, 3] each, instead of tops, keys and values.
    """

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, *memories: Tensor) -> tuple[Tensor, ...]:
        older, remembered, reference = memories
        features = self.network.encode(frame, train=False)
        tops = [
            self.network.encode(x, train=False)[-1]
            for x in (*older.split(1), *remembered.split(1))
        ]
        keys, values = self.network.global_key_value(torch.cat(tops[LOCAL:]))
        stored = keys[None], values[None]
        logits = self.network.decode(features, tops[:LOCAL], stored)
        return _outputs(logits, features[-1], reference)


def _outputs(logits: Tensor, top: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    log_p = logits.log_softmax(1)
    confidence = (log_p.exp() * log_p).sum(1).mean()
    distance = (top - reference).square().sum().sqrt()
    size = [4 * n for n in logits.shape[2:]]
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits.argmax(1).to(torch.uint8), top, confidence, distance


def _eager(module: nn.Module, example: Arrays) -> Call:
    return torch.inference_mode()(module)


def _compiled(module: nn.Module, example: Arrays) -> Call:
    return torch.inference_mode()(torch.compile(module, dynamic=False))


def _onnxruntime(module: nn.Module, example: Arrays) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(
        _onnx(module, example), options, providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _openvino(module: nn.Module, example: Arrays) -> Call:
    # Through ONNX, because OpenVINO's PyTorch converter requires its telemetry.
    core = openvino_core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = core.read_model(_onnx(module, example))
    call = core.compile_model(model, "CPU", settings)
    return lambda *inputs: call(list(inputs)).to_tuple()


def _onnx(module: nn.Module, example: Arrays) -> bytes:
    inputs = tuple(torch.from_numpy(x) for x in example)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        torch.onnx.export(module, inputs, file.name, dynamo=False)
        return file.read()


RUNTIMES: dict[str, Callable[[nn.Module, Arrays], Call]] = {
    "torch": _eager,
    "torch.compile": _compiled,
    "authors": _eager,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Functions that make a module callable in a runtime, from an example of its inputs."""


class Stream:
    """A network in one of the runtimes, with the memories of one video.

    Args:
        kind: a key of `RUNTIMES`.
        network: the network, with folded norms.
        size: (H, W) of the frames.
    """

    def __init__(self, kind: str, network: TorchDMNet, size: tuple[int, int]) -> None:
        h, w = size[0] // 32, size[1] // 32
        self._reencodes, runtime = kind == "authors", RUNTIMES[kind]
        self._torch = kind in PYTORCH
        frame = self._to_runtime(np.zeros((1, *size, 3), np.uint8))
        top, *key_value = (
            self._to_runtime(np.zeros((1, c, h, w), np.float32)) for c in (256, 64, 128)
        )
        self._reference = top
        # Zeros until there are frames; the first output is not compared.
        self._older = [frame if self._reencodes else top]
        self._stored = [(frame,) if self._reencodes else tuple(key_value)]
        self._frames, self._rng = 0, np.random.default_rng(0)
        module = ReencodingStep(network) if self._reencodes else CachedStep(network)
        self._step = runtime(module, (frame, *self._read(), top))
        self._key_value = runtime(KeyValueStep(network), (top,))

    def step(self, frame: np.ndarray) -> dict[str, Any]:
        """Returns labels, scores and admission of a frame uint8 [1, H, W, 3]."""
        x = self._to_runtime(frame)
        labels, top, confidence, distance = self._step(
            x, *self._read(), self._reference
        )
        first = self._frames == 0
        admitted = first or -float(distance) < MAX_SIMILARITY
        if first:
            self._older, self._stored = [], []  # drops the zeros
        self._older = [*self._older, x if self._reencodes else top][-LOCAL:]
        if admitted:
            item = (x,) if self._reencodes else tuple(self._key_value(top))
            self._stored = [*self._stored, item][-GLOBAL:]
            self._reference = top
        self._frames += 1
        return {
            "labels": labels.cpu().numpy() if self._torch else labels,
            "confidence": np.array([float(confidence)]),
            "distance": np.array([float(distance)]),
            "admitted": np.array([admitted]),
        }

    def _to_runtime(self, array: np.ndarray) -> Any:
        """Returns a tensor on the device for PyTorch, else the array."""
        return torch.from_numpy(array).to(DEVICE) if self._torch else array

    def _read(self) -> list[Any]:
        """Returns the window and the selected frames; missing ones repeat the first."""
        window = [self._older[0]] * (LOCAL - len(self._older)) + self._older
        indices = self._rng.permutation(len(self._stored))[:READS].tolist()
        indices += [0] * (READS - len(indices))
        stored = zip(*(self._stored[k] for k in indices), strict=True)
        concatenate: Any = torch.cat if self._torch else np.concatenate
        return [concatenate(arrays) for arrays in (window, *stored)]


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Like `jax_live.prepare`, from the files that it wrote."""
    torch.set_num_threads(machine.cores())
    variables = unflatten(load_file(folder / "variables.safetensors"))
    device = DEVICE if kind in PYTORCH else "cpu"
    network = TorchDMNet(variables, memory=True, device=device)
    network.fold_norms()
    start = time.perf_counter()
    stream = Stream(kind, network, case.size)
    report: dict[str, Any] = {"compile_s": time.perf_counter() - start}
    images = scenes(case)
    start = time.perf_counter()
    outputs = [stream.step(images[0])]
    report["first_s"] = time.perf_counter() - start
    outputs += [stream.step(images[checked_scene(k)]) for k in range(1, CHECKED_FRAMES)]
    expected = load_file(folder / "outputs.safetensors")
    next_frame = frame_source(case)
    package = kind if kind in ("onnxruntime", "openvino") else "torch"

    def turn() -> dict[str, list[float]]:
        times = time_steps(lambda: stream.step(next_frame()), case.seconds)
        return {"end_to_end": times}

    return {
        **report,
        "differences": differences(stack_outputs(outputs), expected),
        "allocator": machine.allocator(),
        "device": device,
        "versions": {package: version(package)},
    }, turn
