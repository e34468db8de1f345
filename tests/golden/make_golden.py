"""Golden values from an independent PyTorch implementation of the network.

    python tests/golden/make_golden.py compare REFERENCE_DIR
    python tests/golden/make_golden.py write tests/golden

`compare` checks this network against recorded runs of the authors' release; `write`
draws weights and frames by the same recipe at a smaller size and records the logits
in `NAME.npz` beside `index.json`. Needs torch, unlike the other tests: install
it in a separate environment. Everything is on the CPU, in float32 by default;
`compare --double` computes in float64, to tell rounding from error.

The network: MobileNetV2 with symmetric padding, light-weight RefineNet, a recurrent
cell and non-local attention over remembered frames, named so that its state dict has
the names of the release.
"""

import argparse
import json
from pathlib import Path

import numpy as np

# pyright: reportMissingImports=false
import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
WIDTH, KEY, VALUE = 256, 64, 128
# name: (recurrent cell, attention to itself, frames in the global memory)
MODELS = {
    "single_frame": ("none", False, 0),
    "temporal_btnlstm": ("bottleneck", False, 0),
    "temporal_convlstm": ("conv", False, 0),
    "effla_btnlstm": ("bottleneck", True, 0),
    "spatial_global4": ("none", False, 4),
    "dmnet_btnlstm": ("bottleneck", False, 4),
    "dmnet_convlstm": ("conv", False, 4),
}
WRITTEN = {"dmnet_btnlstm": 9, "effla_btnlstm": 5}


def conv(inputs: int, outputs: int, size: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)


def conv_norm(
    inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    layer = nn.Conv2d(
        inputs, outputs, size, stride, size // 2, groups=groups, bias=False
    )
    return [layer, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        self.output = nn.Sequential(
            nn.Sequential(*conv_norm(inputs, hidden, 1), nn.ReLU6()),
            nn.Sequential(*conv_norm(hidden, hidden, 3, stride, hidden), nn.ReLU6()),
            nn.Sequential(*conv_norm(hidden, outputs, 1)),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output(x) if self.residual else self.output(x)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(*conv_norm(3, 32, 3, 2), nn.ReLU6())
        channels = 32
        for number, (expansion, outputs, repeats, stride) in enumerate(STAGES, 2):
            blocks = []
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                blocks.append(Block(channels, outputs, expansion, step))
                channels = outputs
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.conv8 = conv(320, WIDTH)
        self.conv7 = conv(160, WIDTH)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number in range(1, 9):
            x = getattr(self, f"layer{number}")(x)
            maps.append(x)
        top = F.relu6(self.conv8(maps[7]) + self.conv7(maps[6]))
        return [*maps[2:6], top]


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        for stage in range(1, 5):
            setattr(self, f"{stage}_outvar_dimred", conv(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        path = x
        for stage in range(1, 5):
            path = F.max_pool2d(path, 5, 1, 2)
            path = getattr(self, f"{stage}_outvar_dimred")(path)
            x = x + path
        return x


class Decoder(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        for number, channels in ((6, 96), (5, 64), (4, 32), (3, 24)):
            setattr(self, f"conv{number}", conv(channels, WIDTH))
        for number in (4, 3, 2, 1):
            setattr(self, f"crp{number}", nn.Sequential(Pooling()))
        for number in (4, 3, 2):
            setattr(self, f"conv_adapt{number}", conv(WIDTH, WIDTH))
        self.segm = conv(WIDTH, classes, 3, bias=True)

    def forward(self, maps: list[Tensor], x: Tensor) -> Tensor:
        quarter, eighth, sixteenth64, sixteenth96 = maps

        def enlarge(x: Tensor) -> Tensor:
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

        x = enlarge(self.conv_adapt4(self.crp4(x)))
        x = F.relu6(self.conv5(sixteenth64) + self.conv6(sixteenth96) + x)
        x = enlarge(self.conv_adapt3(self.crp3(x)))
        x = F.relu6(self.conv4(eighth) + x)
        x = enlarge(self.conv_adapt2(self.crp2(x)))
        return self.segm(self.crp1(F.relu6(self.conv3(quarter) + x)))


class BottleneckCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.Wy = conv(2 * WIDTH, WIDTH, bias=True)
        self.Wi = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)
        for gate in "ifco":
            setattr(self, f"Wb{gate}", conv(WIDTH, WIDTH))

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        b = self.Wi(self.Wy(torch.cat([self.W(x), hidden], 1)))
        selected = torch.sigmoid(self.Wbf(b)) * cell
        cell = selected + torch.sigmoid(self.Wbi(b)) * torch.tanh(self.Wbc(b))
        return torch.sigmoid(self.Wbo(b)) * torch.tanh(cell), cell


class ConvCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(2 * WIDTH, 4 * WIDTH, 3, bias=True)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.conv(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class Network(nn.Module):
    def __init__(self, name: str, classes: int):
        super().__init__()
        cell, self.attends_to_itself, self.past = MODELS[name]
        self.encoder = Encoder()
        self.decoder = Decoder(classes)
        processer = nn.Module()
        if cell == "bottleneck":
            processer.cell = BottleneckCell()
        elif cell == "conv":
            processer.cell_list = nn.ModuleList([ConvCell()])
        self.lstm = nn.Module()
        self.lstm.processer = processer
        self.recurrent = cell != "none"
        if self.past or self.attends_to_itself or name == "single_frame":
            self.memory = nn.Module()
            self.memory.kv = nn.Module()
            self.memory.kv.Key = conv(WIDTH, KEY, 3, bias=True)
            self.memory.kv.Value = conv(WIDTH, VALUE, 3, bias=True)

    def temporal(self, window: list[Tensor]) -> Tensor:
        parts = self.lstm.processer
        cell = parts.cell if hasattr(parts, "cell") else parts.cell_list[0]
        hidden = state = torch.zeros_like(window[0])
        for x in window:
            hidden, state = cell(x, hidden, state)
        return hidden

    def attend(self, query: Tensor, remembered: list[Tensor]) -> Tensor:
        kv = self.memory.kv
        batch, _, height, width = query.shape
        q = kv.Key(query).flatten(2)
        query_value = kv.Value(query)
        keys = torch.cat([kv.Key(x).flatten(2) for x in remembered], 2)
        values = torch.cat([kv.Value(x).flatten(2) for x in remembered], 2)
        affinity = torch.softmax(q.transpose(1, 2) @ keys / KEY**0.5, -1)
        read = (values @ affinity.transpose(1, 2)).view(batch, VALUE, height, width)
        return torch.cat([read, query_value], 1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        maps = [self.encoder(frame) for frame in frames.unbind(1)]
        *fine, top = maps[-1]
        tops = [m[-1] for m in maps]
        outputs = dict(
            zip(["enc_l3", "enc_l4", "enc_l5", "enc_l6"], fine, strict=True), enc_l7=top
        )
        x = top
        if self.recurrent:
            x = outputs["lstm"] = self.temporal(tops[self.past :])
        if self.attends_to_itself:
            x = outputs["memory"] = self.attend(x, [x])
        if self.past:
            x = outputs["memory"] = self.attend(x, tops[: self.past])
        return outputs | {"logits": self.decoder(fine, x)}


def draw_state(state_dict: list, seed: int) -> dict[str, Tensor]:
    """The i-th entry of `state_dict` ([name, shape] pairs) draws from seed + i."""
    drawn = {}
    for i, (name, shape) in enumerate(state_dict):
        if name.endswith("num_batches_tracked"):
            drawn[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        n = np.random.RandomState(seed + i).standard_normal(shape)
        if name.endswith("running_mean"):
            n = 0.1 * n
        elif name.endswith("running_var"):
            n = np.exp(0.2 * n)
        elif n.ndim == 4:
            n = n * np.sqrt(2.0 / (shape[1] * shape[2] * shape[3]))
        elif name.endswith("weight"):
            n = 1.0 + 0.1 * n
        else:
            n = 0.1 * n
        drawn[name] = torch.from_numpy(np.asarray(n, np.float32))
    return drawn


@torch.no_grad()
def run(name: str, record: dict, double: bool = False) -> dict[str, np.ndarray]:
    network = Network(name, record["classes"]).eval()
    network.load_state_dict(draw_state(record["state_dict"], record["seed"]))
    shape = [record[k] for k in ("batch", "frames")] + [3]
    shape += [record["height"], record["width"]]
    generator = np.random.RandomState(record["seed"] + 100000)
    frames = torch.from_numpy(generator.standard_normal(shape).astype(np.float32))
    if double:
        network, frames = network.double(), frames.double()
    return {k: v.float().numpy() for k, v in network(frames).items()}


def compare(folder: Path, double: bool) -> None:
    index = json.loads((folder / "index.json").read_text())
    for name, record in index.items():
        with np.load(folder / f"{name}.npz") as reference:
            for key, value in run(name, record, double).items():
                error = np.abs(value - reference[key]).max()
                print(f"{name:<20}{key:<8}{error / np.abs(reference[key]).max():.1e}")


def write(folder: Path) -> None:
    index = {}
    for number, (name, frames) in enumerate(WRITTEN.items(), 1):
        entries = Network(name, 4).state_dict().items()
        index[name] = {
            "seed": 1000 * number,
            "classes": 4,
            "batch": 1,
            "frames": frames,
            "height": 64,
            "width": 96,
            "state_dict": [[key, list(value.shape)] for key, value in entries],
        }
        outputs = run(name, index[name], double=True)
        selected = ("logits", "enc_l7", "lstm", "memory")
        maps: dict = {k: outputs[k] for k in selected}
        np.savez_compressed(folder / f"{name}.npz", **maps)
    (folder / "index.json").write_text(json.dumps(index) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Golden numbers, in PyTorch.")
    parser.add_argument("command", choices=("compare", "write"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--double", action="store_true")
    options = parser.parse_args()
    if options.command == "compare":
        compare(options.folder, options.double)
    else:
        write(options.folder)
