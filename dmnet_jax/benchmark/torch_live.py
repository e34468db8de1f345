# pyright: reportMissingImports=false
"""Streaming steps of the PyTorch version, for speed comparison only (extra `peers`).

Compared are PyTorch eager, PyTorch compiled, and the authors' method, which encodes all
nine frames again. ONNX Runtime and OpenVINO run PyTorch's export on the CPU. All have
the same memories: features of the last frames, keys and values of admitted frames. They
are on the host, or on the GPU for PyTorch with CUDA. Norms are folded, and maps are
channels-last if the runtime allows it.
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
    CHECKED,
    MAX_SIMILARITY,
    LiveCase,
    checked_scene,
    differences,
    scenes,
    stacked,
    timed,
    timed_frames,
)
from dmnet_jax.benchmark.torch_dmnet import DEVICE, TorchDMNet
from dmnet_jax.streaming.runtimes import import_openvino
from dmnet_jax.weights.layout import unflatten

# The paper's tau and n, and our default size of the global memory.
LOCAL, READS, GLOBAL = 4, 4, 225

PYTORCH = ("torch", "torch.compile", "authors")

Call: TypeAlias = Callable[..., Any]
Arrays: TypeAlias = Sequence[Any]  # NumPy arrays, or tensors for `PYTORCH`


class Cached(nn.Module):
    """A step that caches features of earlier frames.

    Takes a frame uint8 [1, H, W, 3], the older tops [4, 256, h, w], the keys
    [4, 64, h, w] and values [4, 128, h, w] that were read, and the top admitted last
    [1, 256, h, w]. Returns labels, top, confidence and distance.
    """

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, *read: Tensor) -> tuple[Tensor, ...]:
        older, keys, values, reference = read
        features = self.network.encode(frame, train=False)
        stored = keys[None], values[None]
        logits = self.network.decode(features, list(older.split(1)), stored)
        return _outputs(logits, features[-1], reference)


class Key(nn.Module):
    """Computes key and value from the top of an admitted frame."""

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, top: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.remember(top)


class Again(nn.Module):
    """The authors' method: remembered frames uint8 [4, H, W, 3] are encoded again."""

    def __init__(self, network: TorchDMNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor, *read: Tensor) -> tuple[Tensor, ...]:
        older, remembered, reference = read
        features = self.network.encode(frame, train=False)
        tops = [
            self.network.encode(x, train=False)[-1]
            for x in (*older.split(1), *remembered.split(1))
        ]
        keys, values = self.network.remember(torch.cat(tops[LOCAL:]))
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


def eager(module: nn.Module, example: Arrays) -> Call:
    return torch.inference_mode()(module)


def compiled(module: nn.Module, example: Arrays) -> Call:
    return torch.inference_mode()(torch.compile(module, dynamic=False))


def onnxruntime(module: nn.Module, example: Arrays) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(
        _onnx(module, example), options, providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def openvino(module: nn.Module, example: Arrays) -> Call:
    # Through ONNX, because OpenVINO's PyTorch converter requires its telemetry.
    core = import_openvino().Core()
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
    "torch": eager,
    "torch.compile": compiled,
    "authors": eager,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}


class Stream:
    """A network in one of the runtimes, with the memories of one video."""

    def __init__(self, kind: str, network: TorchDMNet, size: tuple[int, int]) -> None:
        h, w = size[0] // 32, size[1] // 32
        self._again, runtime = kind == "authors", RUNTIMES[kind]
        self._torch = kind in PYTORCH
        frame = self._given(np.zeros((1, *size, 3), np.uint8))
        top, *key_value = (
            self._given(np.zeros((1, c, h, w), np.float32)) for c in (256, 64, 128)
        )
        self._reference = top
        # Zeros until there are frames; the first output is not compared.
        self._older = [frame if self._again else top]
        self._stored = [(frame,) if self._again else tuple(key_value)]
        self._frames, self._rng = 0, np.random.default_rng(0)
        module = Again(network) if self._again else Cached(network)
        self._step = runtime(module, (frame, *self._read(), top))
        self._key = runtime(Key(network), (top,))

    def step(self, frame: np.ndarray) -> dict[str, Any]:
        """Returns labels, scores and admission of a frame uint8 [1, H, W, 3]."""
        given = self._given(frame)
        labels, top, confidence, distance = self._step(
            given, *self._read(), self._reference
        )
        first = self._frames == 0
        admitted = first or -float(distance) < MAX_SIMILARITY
        self._older = ([] if first else self._older) + [given if self._again else top]
        self._older = self._older[-LOCAL:]
        if admitted:
            stored = (given,) if self._again else tuple(self._key(top))
            self._stored = ([] if first else self._stored) + [stored]
            self._stored = self._stored[-GLOBAL:]
            self._reference = top
        self._frames += 1
        return {
            "labels": labels.cpu().numpy() if self._torch else labels,
            "confidence": np.array([float(confidence)]),
            "distance": np.array([float(distance)]),
            "admitted": np.array([admitted]),
        }

    def _given(self, array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(DEVICE) if self._torch else array

    def _read(self) -> list[Any]:
        """Returns the window and the selected frames; missing ones repeat the first."""
        window = [self._older[0]] * (LOCAL - len(self._older)) + self._older
        chosen = self._rng.permutation(len(self._stored))[:READS].tolist()
        chosen += [0] * (READS - len(chosen))
        kept = zip(*(self._stored[k] for k in chosen), strict=True)
        join: Any = torch.cat if self._torch else np.concatenate
        return [join(arrays) for arrays in (window, *kept)]


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
    pictures = scenes(case)
    start = time.perf_counter()
    outputs = [stream.step(pictures[0])]
    report["first_s"] = time.perf_counter() - start
    outputs += [stream.step(pictures[checked_scene(k)]) for k in range(1, CHECKED)]
    expected = load_file(folder / "outputs.safetensors")
    following = timed_frames(case)
    package = kind if kind in ("onnxruntime", "openvino") else "torch"
    return {
        **report,
        "differences": differences(stacked(outputs), expected),
        "allocator": machine.allocator(),
        "device": device,
        "versions": {package: version(package)},
    }, lambda: {"end_to_end": timed(lambda: stream.step(following()), case.seconds)}
