"""The network's step as an ONNX graph: `DMNet.step` written with ONNX operators.

Written by hand, not traced: what is traced is the formulation that XLA runs fastest
(shifted multiply-adds, pooling by rows and columns), and runtimes that read ONNX have
a convolution of each kind that is faster. The parity gate holds the two together.

For one stream. Inputs are the memory's leaves but the PRNG key, then `frames`,
`active`, `reset`, and with a global memory `draw`: float32 [1, global_size], uniform
in [0, 1) and fresh for every frame, which decides what is read. Outputs are the leaves
of the next memory and the labels and gates of `streaming.program.Labelled`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax.export import onnx_ring
from dmnet_jax.export.onnx_builder import Graph, Layer, integers
from dmnet_jax.export.onnx_ring import Ring
from dmnet_jax.export.stablehlo import leaf_names, typed
from dmnet_jax.memory import RESET_ALL, RESET_LOCAL
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn import mobilenet
from dmnet_jax.nn.layers import pad_3x3
from dmnet_jax.streaming.program import NO_LABEL, Interface, input_shapes

_NEVER = np.float32(-1e30)  # a logit that is not read


Pair = dict[str, str]
"""Maps by the names of their leaves: ".key" and ".value", or "" alone; NHWC."""


def export_step(
    model: DMNet, variables: Any, interface: Interface
) -> tuple[bytes, dict[str, Any]]:
    """The step as a serialised ONNX model, and JSON that describes it.

    Raises:
        ValueError: the model computes in another dtype than float32, or the interface
            is for several streams.
    """
    if jnp.dtype(model.dtype) != jnp.float32:
        raise ValueError(
            f"model.dtype is {jnp.dtype(model.dtype)}; ONNX is written for float32 "
            "networks only: export this one with --format jax"
        )
    if interface.streams != 1:
        raise ValueError(f"streams is {interface.streams}; ONNX is written for one")
    model, variables = model.folded(variables)
    memory, frames, active, reset = input_shapes(model, interface)
    leaves = dict(zip(leaf_names(memory), jax.tree.leaves(memory), strict=True))
    held = {name: x for name, x in leaves.items() if name != ".key"}
    inputs = {f"memory{name}": x for name, x in held.items()}
    inputs |= {"frames": frames, "active": active, "reset": reset}
    if model.global_memory:
        inputs["draw"] = jax.ShapeDtypeStruct((1, model.global_size), jnp.float32)
    outputs = {f"next_memory{name}": x for name, x in held.items()}
    outputs |= {
        "labels": jax.ShapeDtypeStruct((1, *interface.label_size), jnp.uint8),
        "confidence": jax.ShapeDtypeStruct((1,), jnp.float32),
        "similarity": jax.ShapeDtypeStruct((1,), jnp.float32),
        "admitted": jax.ShapeDtypeStruct((1,), jnp.bool_),
    }
    step = _Step(model, variables, interface)
    for name, x in inputs.items():
        step.g.input(name, x.shape, x.dtype)
    written = step.write({name: f"memory{name}" for name in held})
    for name, x in outputs.items():
        step.g.output(name, written[name], x.shape, x.dtype)
    return step.g.serialise("dmnet_step"), {
        "memory": typed(leaves, leaves.values()),
        "inputs": typed(inputs, inputs.values()),
        "outputs": typed(outputs, outputs.values()),
    }


class _Step:
    """Writes one step of a folded network into `g`; methods mirror those of `DMNet`."""

    def __init__(self, model: DMNet, variables: Any, interface: Interface) -> None:
        self.g = Graph()
        self.model, self.interface = model, interface
        self.weights, self.thresholds = variables["params"], variables["thresholds"]
        self.grid = interface.size[0] // 32, interface.size[1] // 32

    def write(self, leaves: dict[str, str]) -> dict[str, str]:
        """From the memory's leaves by name to the outputs by name."""
        g = self.g
        local, reference, global_, frame = self.reset(leaves)
        features = self.encode()
        top = g.nhwc(features["top"])
        own = self.own(features["top"])
        x = self.aggregate_local(local, features["top"], own)
        stored: Pair = {}
        if self.model.global_memory:
            stored = self.global_key_value(features["top"])
            x = self.aggregate_global(global_, stored, x)
        logits = self.decode(x, features)

        confidence = self.confidence(logits)
        similarity, admitted = self.judge(reference, top, confidence, stored)
        in_local = g.add("And", "active", self.finite(top, *own.values()))
        counted = g.add("Add", frame, g.cast("active", np.int32))
        after = {"next_memory.frame": counted}
        for name, ring, items, where in (
            (".local", local, own, in_local),
            (".reference", reference, {"": top}, admitted),
            (".global_", global_, stored, admitted),
        ):
            pushed = onnx_ring.push(g, ring, items, frame, where)
            after |= {f"next_memory{name}{leaf}": x for leaf, x in pushed.items()}
        size = self.interface.label_size
        enlarged = g.enlarge(logits, (1, self.model.num_classes, *size))
        labels = g.cast(g.add("ArgMax", enlarged, axis=1, keepdims=0), np.uint8)
        return after | {
            "labels": g.add("Where", "active", labels, np.uint8(NO_LABEL)),
            "confidence": confidence,
            "similarity": similarity,
            "admitted": admitted,
        }

    def reset(self, leaves: dict[str, str]) -> tuple[Ring, Ring, Ring, str]:
        """Local, reference and global ring and the frame's index, as `reset` says."""
        g = self.g
        what = g.cast("reset", np.int32)
        window = g.add("GreaterOrEqual", what, np.int32(RESET_LOCAL))
        everything = g.add("GreaterOrEqual", what, np.int32(RESET_ALL))

        def ring(name: str, size: int, where: str) -> Ring:
            return onnx_ring.ring_of(g, leaves, name, size, where)

        local_size = self.model.local_size if self.model.local != "none" else 1
        return (
            ring(".local", local_size, window),
            ring(".reference", 1, everything),
            ring(".global_", self.model.global_size, everything),
            g.add("Where", everything, np.int32(0), leaves[".frame"]),
        )

    def encode(self) -> dict[str, str]:
        """The maps that the decoder and the memories need of the frame."""
        g, padding, weights = self.g, self.model.encoder, self.weights["backbone"]
        size = list(self.interface.size)

        def filtered(x: str, layer: Layer, stride: int, depthwise: bool) -> str:
            pads = [pad_3x3(n, stride, padding) for n in size]
            size[:] = [n // stride for n in size]
            options: Any = {"stride": stride, "pads": pads, "depthwise": depthwise}
            return g.relu6(g.conv(x, layer, **options))

        x = g.cast(g.nchw("frames"), np.float32)
        mean, deviation = mobilenet.MEAN, mobilenet.DEVIATION
        if padding == "keras":
            mean = deviation = np.float32(0.5)
        scale = 1 / (255 * np.float64(deviation))
        shift = -np.float64(mean) / deviation
        for op, values in (("Mul", scale), ("Add", shift)):
            x = g.add(op, x, np.float32(values).reshape(1, -1, 1, 1))
        x = filtered(x, weights["stem"], 2, False)
        outputs, index = [], 0
        for _, channels, repeats, first_stride in self.model.stages:
            for repeat in range(repeats):
                block = weights[f"block{index}"]
                stride = first_stride if repeat == 0 else 1
                y = g.relu6(g.conv(x, block["expand"]))
                y = filtered(y, block["depthwise"], stride, True)
                y = g.conv(y, block["project"])
                if stride == 1 and channels == block["expand"]["kernel"].shape[2]:
                    y = g.add("Add", y, x)
                x = y
                index += 1
            outputs.append(x)
        deep, deepest = outputs[5:]
        top = g.add(
            "Add",
            g.conv(deepest, self.weights["lateral8"]),
            g.conv(deep, self.weights["lateral7"]),
        )
        names = ("quarter", "eighth", "sixteenth_64", "sixteenth_96")
        return {**dict(zip(names, outputs[1:5], strict=True)), "top": g.relu6(top)}

    def decode(self, top: str, features: dict[str, str]) -> str:
        """Logits [1, num_classes, H/4, W/4]."""
        g, weights = self.g, self.weights["decoder"]

        def pool(name: str, x: str) -> tuple[str, str]:
            last = x
            for stage in range(len(weights[name])):
                last = g.conv(g.max_pool_5x5(last), weights[name][f"conv{stage}"])
                x = g.add("Add", x, last)
            return x, last

        def finer(x: str, level: int, *laterals: tuple[str, str]) -> str:
            adapted = g.conv(pool(f"crp{level}", x)[0], weights[f"adapt{level}"])
            x = g.upsample_2x(adapted)
            for lateral, name in laterals:
                x = g.add("Add", g.conv(features[name], weights[lateral]), x)
            return g.relu6(x)

        x = finer(top, 4, ("lateral5", "sixteenth_64"), ("lateral6", "sixteenth_96"))
        x = finer(x, 3, ("lateral4", "eighth"))
        x = finer(x, 2, ("lateral3", "quarter"))
        x, last = pool("crp1", x)
        pooled = g.conv(g.max_pool_5x5(last), weights["pooled_classifier"])
        return g.add("Add", g.conv(x, weights["classifier"]), pooled)

    def key_value(self, layers: dict[str, Layer], x: str) -> Pair:
        sizes = [self.model.key_channels, self.model.value_channels]
        both = _beside(layers["key"], layers["value"])
        key, value = self.g.split(self.g.nhwc(self.g.conv(x, both)), sizes, 3)
        return {".key": key, ".value": value}

    def global_key_value(self, x: str) -> Pair:
        shared = "global_key_value" not in self.weights
        name = "local_key_value" if shared else "global_key_value"
        return self.key_value(self.weights[name], x)

    def own(self, top: str) -> Pair:
        """What the local memory keeps of a frame, by the leaves' names, NHWC."""
        g, weights = self.g, self.weights
        if self.model.local == "none":
            return {}
        if self.model.local == "nl":
            return self.key_value(weights["local_key_value"], top)
        cell = weights["recurrent"]
        if self.model.local == "clstm":
            return {"": g.nhwc(g.conv(top, self.half(cell["gates"], "input")))}
        top = g.conv(top, cell["input_filter"], depthwise=True)
        return {"": g.nhwc(g.conv(top, self.half(cell["bottleneck"], "input")))}

    def half(self, layer: Layer, of: str) -> Layer:
        """The part of a `JoinedConv` for its "input" or its "hidden" state."""
        width = self.model.width
        if of == "input":
            return {**layer, "kernel": layer["kernel"][:, :, :width]}
        return {"kernel": layer["kernel"][:, :, width:]}

    def aggregate_local(self, ring: Ring, top: str, own: Pair) -> str:
        model, g = self.model, self.g
        if model.local == "none":
            return top
        window, length = onnx_ring.window(g, ring, own), model.local_size + 1
        if model.local == "nl":
            return self.attend(own, window, length)
        channels = model.width if model.local != "clstm" else 4 * model.width
        frames = g.nchw(g.reshape(window[""], length, *self.grid, channels))
        inputs = g.split(frames, [1] * length, 0)
        if model.local == "clstm":
            return self.conv_lstm(inputs)
        temporal = self.bottleneck_lstm(inputs)
        if model.local == "blstm":
            return temporal
        query = self.key_value(self.weights["local_key_value"], temporal)
        return self.attend(query, query, 1)

    def bottleneck_lstm(self, inputs: list[str]) -> str:
        g, weights, width = self.g, self.weights["recurrent"], self.model.width

        def gates(x: str, names: str) -> list[str]:
            layer = _beside(*(weights[f"gate_{name}"] for name in names))
            x = g.conv(x, weights["gate_filter"], depthwise=True)
            return g.split(g.conv(x, layer), [width] * len(names), 1)

        cell, hidden = self.lstm(None, *gates(inputs[0], "ico"))
        for x in inputs[1:]:
            past = g.conv(hidden, self.half(weights["bottleneck"], "hidden"))
            f, i, c, o = gates(g.add("Add", past, x), "fico")
            cell, hidden = self.lstm((f, cell), i, c, o)
        return hidden

    def conv_lstm(self, inputs: list[str]) -> str:
        g, hidden = self.g, ""
        later = self.half(self.weights["recurrent"]["gates"], "hidden")
        before: tuple[str, str] | None = None
        for x in inputs:
            if before is not None:
                x = g.add("Add", g.conv(hidden, later), x)
            i, f, o, c = g.split(x, [self.model.width] * 4, 1)
            forgotten = None if before is None else (f, before[1])
            cell, hidden = self.lstm(forgotten, i, c, o)
            before = f, cell
        return hidden

    def lstm(
        self, forgotten: tuple[str, str] | None, i: str, c: str, o: str
    ) -> tuple[str, str]:
        """Cell and hidden state of gates; `forgotten` is f's gate and the cell."""
        g = self.g
        cell = g.add("Mul", g.add("Sigmoid", i), g.add("Tanh", c))
        if forgotten is not None:
            kept = g.add("Mul", g.add("Sigmoid", forgotten[0]), forgotten[1])
            cell = g.add("Add", kept, cell)
        return cell, g.add("Mul", g.add("Sigmoid", o), g.add("Tanh", cell))

    def aggregate_global(self, ring: Ring, itself: Pair, x: str) -> str:
        rows = min(self.model.num_reads, self.model.global_size)
        items, readable = onnx_ring.drawn(self.g, ring, rows, "draw", itself)
        return self.attend(self.global_key_value(x), items, rows, readable)

    def attend(
        self, query: Pair, items: Pair, rows: int, readable: str | None = None
    ) -> str:
        """Readout beside the query's value, [1, width, h, w]; readable bool [rows]."""
        g, model = self.g, self.model
        (h, w), positions = self.grid, self.grid[0] * self.grid[1]
        scale = np.float32(1 / np.sqrt(model.key_channels))
        q = g.add("Mul", g.reshape(query[".key"], positions, -1), scale)
        k = g.reshape(items[".key"], rows * positions, -1)
        v = g.reshape(items[".value"], rows * positions, -1)
        logits = g.add("MatMul", q, g.add("Transpose", k, perm=[1, 0]))
        if readable is not None:
            bias = g.add("Where", readable, np.float32(0), _NEVER)
            wide = g.add(
                "Expand", g.reshape(bias, rows, 1), integers([rows, positions])
            )
            logits = g.add("Add", logits, g.reshape(wide, 1, rows * positions))
        readout = g.add("MatMul", g.add("Softmax", logits, axis=-1), v)
        own = g.reshape(query[".value"], positions, -1)
        both = g.add("Concat", readout, own, axis=1)
        return g.nchw(g.reshape(both, 1, h, w, 2 * model.value_channels))

    def confidence(self, logits: str) -> str:
        g = self.g
        logarithm = g.add("LogSoftmax", logits, axis=1)
        terms = g.add("Mul", g.add("Exp", logarithm), logarithm)
        total = g.add("ReduceSum", terms, integers([1, 2, 3]), keepdims=0)
        height, width = self.interface.size
        return g.add("Mul", total, np.float32(16 / (height * width)))

    def judge(
        self, ring: Ring, top: str, confidence: str, stored: dict[str, str]
    ) -> tuple[str, str]:
        """Similarity to the latest admitted frame; whether this one is admitted."""
        g, thresholds = self.g, self.thresholds
        latest = g.reshape(ring.slots[""], 1, *self.grid, self.model.width)
        axes = integers([1, 2, 3])
        apart = g.add("ReduceSumSquare", g.add("Sub", latest, top), axes, keepdims=0)
        similarity = g.add("Neg", g.add("Sqrt", apart))
        first = onnx_ring.is_empty(g, ring)
        similarity = g.add("Where", first, np.float32(-np.inf), similarity)
        confident = g.add("Greater", confidence, thresholds["min_confidence"])
        apart = g.add("Less", similarity, thresholds["max_similarity"])
        wanted = g.add("And", confident, g.add("Or", first, apart))
        wanted = g.add("Or", wanted, first)
        finite = self.finite(top, *stored.values())
        known = g.add("Less", g.add("Abs", confidence), np.float32(np.inf))
        for condition in (finite, known, "active"):
            wanted = g.add("And", wanted, condition)
        return similarity, wanted

    def finite(self, *maps: str) -> str:
        """bool [1], whether maps [1, h, w, C] hold no NaN or infinity: their sums."""
        g, axes = self.g, integers([1, 2, 3])
        sums = [g.add("ReduceL1", x, axes, keepdims=0) for x in maps]
        total = sums[0]
        for x in sums[1:]:
            total = g.add("Add", total, x)
        return g.add("Less", total, np.float32(np.inf))


def _beside(*layers: Layer) -> Layer:
    """One layer with the outputs of all."""
    return {
        name: np.concatenate([layer[name] for layer in layers], -1)
        for name in layers[0]
    }
