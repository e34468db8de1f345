# pyright: reportMissingImports=false
"""The network in PyTorch, for speed comparison only (extra `peers`).

Written for these benchmarks in the form that PyTorch runs fastest on a CPU: maps are
NCHW in shape and channels-last in memory, and all operations are calls of
`torch.nn.functional`. Parameters have the names and values of the Flax network, so that
outputs and gradients can be compared leaf by leaf. Supports the single-frame network
and DMNet (ELA and AGA).
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import Tensor

from dmnet_jax.benchmark.case import MATMUL_SIZE, Case, differences
from dmnet_jax.machine import peak_matmul_rate, time_call
from dmnet_jax.nn.mobilenet import STAGES
from dmnet_jax.weights.layout import flatten, unflatten

KeyValue = tuple[Tensor, Tensor]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":
    torch.set_float32_matmul_precision("high")  # TF32, as in XLA by default


class TorchDMNet:
    """DMNet with the variables of the Flax network and the Keras encoder.

    Attributes:
        params: leaf tensors by Flax names without the collection, such as
            "backbone/stem/kernel"; kernels are OIHW.
        memory: whether ELA and AGA are enabled.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        *,
        memory: bool,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.memory = memory
        self._dtype = dtype
        self.params: dict[str, Tensor] = {}
        self._statistics: dict[str, Tensor] = {}
        for name, value in flatten(variables).items():
            collection, _, rest = name.partition("/")
            tensor = torch.tensor(value, dtype=dtype, device=device)
            if tensor.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1)
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            if collection == "params":
                self.params[rest] = tensor.requires_grad_()
            elif collection == "batch_stats":
                self._statistics[rest] = tensor

    def fold_norms(self) -> None:
        """Folds every norm into the preceding convolution, for inference."""
        names = [n.removesuffix("/mean") for n in self._statistics if "/mean" in n]
        for norm in names:
            layer = norm.removesuffix("_norm")
            variance = self._statistics.pop(f"{norm}/var")
            scale = self.params.pop(f"{norm}/scale").detach() / (variance + 1e-3).sqrt()
            shift = scale * self._statistics.pop(f"{norm}/mean")
            self.params[f"{layer}/bias"] = self.params.pop(f"{norm}/bias") - shift
            kernel = self.params[f"{layer}/kernel"].detach()
            self.params[f"{layer}/kernel"] = kernel * scale[:, None, None, None]
        self.params = {name: value.detach() for name, value in self.params.items()}

    def encode(self, frames: Tensor, *, train: bool) -> tuple[Tensor, ...]:
        """Encodes uint8 [N, H, W, 3] to maps of 24, 32, 64, 96 and 256 channels."""
        x = (frames.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self._dtype)
        x = self._conv(x, "backbone/stem", 2)
        x = F.relu6(self._norm(x, "backbone/stem_norm", train))
        outputs, index = [], 0
        for _, _, repeats, first_stride in STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                x = self._block(x, f"backbone/block{index}", stride, train)
                index += 1
            outputs.append(x)
        quarter, eighth, sixteenth_64, sixteenth_96, deep160, deep320 = outputs[1:]
        top = F.relu6(self._conv(deep320, "lateral8") + self._conv(deep160, "lateral7"))
        return quarter, eighth, sixteenth_64, sixteenth_96, top

    def global_key_value(self, top: Tensor) -> KeyValue:
        """Returns key and value of a top [N, 256, h, w] for the global memory."""
        return self._key_value(top, "global_key_value")

    def decode(
        self,
        features: tuple[Tensor, ...],
        older: list[Tensor] | None = None,
        stored: KeyValue | None = None,
    ) -> Tensor:
        """Returns logits [B, C, H/4, W/4] of the current frame.

        Args:
            features: result of `encode`.
            older: tops of the local window, oldest first; required with a memory.
            stored: keys [B, n, 64, h, w] and values [B, n, 128, h, w] of the frames
                read from the global memory; required with a memory.
        """
        quarter, eighth, sixteenth_64, sixteenth_96, x = features
        if self.memory:
            assert older is not None and stored is not None
            window = self._recurrent([*older, x], "recurrent")
            key, value = self._key_value(window, "local_key_value")
            x = _attend((key, value), (key[:, None], value[:, None]))
            x = _attend(self.global_key_value(x), stored)
        x = self._upsample(self._pool(x, "crp4"), "adapt4")
        stages = [
            (
                "crp3",
                "adapt3",
                [("lateral5", sixteenth_64), ("lateral6", sixteenth_96)],
            ),
            ("crp2", "adapt2", [("lateral4", eighth)]),
        ]
        for pool, adapt, laterals in stages:
            for name, lateral in laterals:
                x = x + self._conv(lateral, f"decoder/{name}")
            x = self._upsample(self._pool(F.relu6(x), pool), adapt)
        x = F.relu6(self._conv(quarter, "decoder/lateral3") + x)
        return self._conv(self._pool(x, "crp1"), "decoder/classifier")

    def clip(self, frames: Tensor, past: Tensor) -> Tensor:
        """Runs the forward pass of training; returns logits of the last frame.

        The earlier frames and `past` are encoded without gradient.

        Args:
            frames: uint8 [B, T, H, W, 3].
            past: uint8 [B, n, H, W, 3].
        """
        features = self.encode(frames[:, -1], train=True)
        if not self.memory:
            return self.decode(features)
        batch, length, count = len(frames), frames.shape[1] - 1, past.shape[1]
        with torch.no_grad():
            remembered = torch.cat([frames[:, :-1], past], 1)
            tops = self.encode(remembered.flatten(0, 1), train=True)[-1]
            tops = tops.unflatten(0, (batch, length + count))
        key, value = self.global_key_value(
            tops[:, length:].reshape(batch * count, *tops.shape[2:])
        )
        stored = key.unflatten(0, (batch, count)), value.unflatten(0, (batch, count))
        return self.decode(features, [tops[:, t] for t in range(length)], stored)

    def gradients(self) -> dict[str, np.ndarray]:
        """Returns gradients by Flax names, with kernels in HWIO."""
        return {
            name: (p.grad.permute(2, 3, 1, 0) if p.ndim == 4 else p.grad).cpu().numpy()
            for name, p in self.params.items()
            if p.grad is not None
        }

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = self.params[f"{name}/kernel"]
        padding = kernel.shape[-1] // 2
        if stride == 2 and padding:
            # Keras pads even sizes only at the end.
            left, top = (int(n % 2) for n in (x.shape[3], x.shape[2]))
            x = F.pad(x, (left, 1, top, 1))
            padding = 0
        groups = x.shape[1] // kernel.shape[1]
        bias = self.params.get(f"{name}/bias")
        return F.conv2d(x, kernel, bias, stride, padding, groups=groups)

    def _norm(self, x: Tensor, name: str, train: bool) -> Tensor:
        if not self._statistics:
            return x
        return F.batch_norm(
            x,
            self._statistics[f"{name}/mean"],
            self._statistics[f"{name}/var"],
            self.params[f"{name}/scale"],
            self.params[f"{name}/bias"],
            training=train,
            eps=1e-3,
        )

    def _block(self, x: Tensor, name: str, stride: int, train: bool) -> Tensor:
        y = self._conv(x, f"{name}/expand")
        y = F.relu6(self._norm(y, f"{name}/expand_norm", train))
        y = self._conv(y, f"{name}/depthwise", stride)
        y = F.relu6(self._norm(y, f"{name}/depthwise_norm", train))
        y = self._norm(self._conv(y, f"{name}/project"), f"{name}/project_norm", train)
        return x + y if stride == 1 and x.shape == y.shape else y

    def _pool(self, x: Tensor, name: str) -> Tensor:
        top = x
        for stage in range(4):
            top = F.max_pool2d(top, 5, 1, 2)
            top = self._conv(top, f"decoder/{name}/conv{stage}")
            x = x + top
        return x

    def _upsample(self, x: Tensor, name: str) -> Tensor:
        """Applies a convolution and doubles the resolution."""
        x = self._conv(x, f"decoder/{name}")
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    def _key_value(self, x: Tensor, name: str) -> KeyValue:
        return self._conv(x, f"{name}/key"), self._conv(x, f"{name}/value")

    def _recurrent(self, window: list[Tensor], name: str) -> Tensor:
        stacked = self._conv(torch.cat(window), f"{name}/input_filter")
        hidden = torch.zeros_like(window[-1])
        cell = hidden
        for x in stacked.chunk(len(window)):
            joined = self._conv(torch.cat([x, hidden], 1), f"{name}/bottleneck")
            gates = self._conv(joined, f"{name}/gate_filter")
            i, f, c, o = (self._conv(gates, f"{name}/gate_{gate}") for gate in "ifco")
            cell = f.sigmoid() * cell + i.sigmoid() * c.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return hidden


def _attend(query: KeyValue, memory: KeyValue) -> Tensor:
    """Reads the memory and appends the query's own value.

    Args:
        query: key [B, C, h, w] and value [B, V, h, w].
        memory: keys [B, M, C, h, w] and values [B, M, V, h, w].

    Returns:
        Readout and value of the query: [B, 2V, h, w].
    """
    key, value = (
        x.permute(0, 1, 3, 4, 2).reshape(len(x), -1, x.shape[2]) for x in memory
    )
    q = query[0].flatten(2).transpose(1, 2)
    affinity = (q @ key.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    readout = (affinity @ value).transpose(1, 2).unflatten(2, query[1].shape[2:])
    return torch.cat([readout, query[1]], 1)


def resize_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Resizes logits [B, C, h, w] bilinearly to the size of labels [B, H, W]."""
    size = labels.shape[1:]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Like `training.losses.dice_loss`.

    Args:
        logits: [B, C, H, W].
        labels: uint8 [B, H, W].
    """
    valid = (labels != 255)[:, None]
    classes = torch.arange(logits.shape[1], device=labels.device).view(1, -1, 1, 1)
    target = (labels[:, None] == classes).to(logits.dtype)
    probability = logits.softmax(1) * valid
    overlap = 2 * (probability * target).sum((2, 3))
    total = probability.sum((2, 3)) + target.sum((2, 3))
    return (1 - (overlap + 1) / (total + 1)).mean()


def prepare(
    case: Case, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Like `jax_training.prepare`, from the files that it wrote."""
    variables = unflatten(load_file(folder / "variables.safetensors"))
    arrays = load_file(folder / "batch.safetensors")
    batch = {name: torch.tensor(x, device=DEVICE) for name, x in arrays.items()}
    dtype = torch.float64 if case.exact else torch.float32
    model = TorchDMNet(variables, memory=case.memory, dtype=dtype, device=DEVICE)
    kernels = [p for n, p in model.params.items() if n.endswith("kernel")]
    others = [p for n, p in model.params.items() if not n.endswith("kernel")]
    adam = torch.optim.Adam(
        [{"params": kernels, "weight_decay": 1e-4}, {"params": others}], lr=1e-4
    )

    def compute_gradient() -> tuple[Tensor, Tensor]:
        """Returns the loss and the logits."""
        adam.zero_grad()
        logits = model.clip(batch["frames"], batch["past"])
        logits = resize_logits(logits, batch["label"])
        loss = dice_loss(logits, batch["label"])
        loss.backward()
        return loss, logits

    def run_step() -> None:
        compute_gradient()
        adam.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    if case.exact:
        loss, logits = compute_gradient()
        result = {
            "loss": loss.detach().cpu().numpy(),
            "logits": logits.detach().permute(0, 2, 3, 1).cpu().numpy(),
            **{f"gradient/{name}": g for name, g in model.gradients().items()},
        }
        return {
            "differences": differences(result, folder / "reference.safetensors")
        }, dict
    run_step()
    matrix = torch.ones(MATMUL_SIZE, MATMUL_SIZE, device=DEVICE)
    peak = peak_matmul_rate(lambda: (matrix @ matrix)[0, 0].item(), MATMUL_SIZE)
    return {"peak": peak}, lambda: {"seconds": time_call(run_step)}
