"""The streaming step as an ONNX graph: `streaming.network` written with ONNX operators.

Written by hand, not traced: what is traced is the formulation that XLA runs fastest
(shifted multiply-adds, pooling by rows and columns), and runtimes that read ONNX have
a convolution of each kind that is faster. The parity gate holds the two together.

For one stream. Inputs are the memory's leaves but the PRNG key, then `frames`,
`active`, `reset`, and with a global memory `draw`: float32 [1, global_size], uniform
in [0, 1) and fresh for every frame, which decides what is read. Outputs are the leaves
of the next memory and the labels and gates of `streaming.program.Labelled`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax.export.onnx_builder import Graph, Value, integers
from dmnet_jax.export.stablehlo import leaf_names
from dmnet_jax.memory import EMPTY
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.nn.layers import pad_3x3
from dmnet_jax.nn.mobilenet import DEVIATION, MEAN, STAGES
from dmnet_jax.nn.refinenet import WIDTH
from dmnet_jax.streaming.folding import Weights, fold
from dmnet_jax.streaming.network import RESET_ALL, RESET_LOCAL
from dmnet_jax.streaming.program import NO_LABEL, Interface, input_shapes

_NEVER = np.float32(-1e30)  # a logit that is not read
_LAST_COUNT = 2**31 - 1


class Pair(NamedTuple):
    """Key and value, NHWC."""

    key: str
    value: str


class Ring(NamedTuple):
    """A ring's leaves: slots by their names, each [1, K, h, w, C]; int32 counters."""

    slots: dict[str, str]
    stamp: str
    count: str
    capacity: int


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
    memory, frames, active, reset = input_shapes(model, interface)
    names, leaves = leaf_names(memory), jax.tree.leaves(memory)
    inputs = {f"memory{n}": x for n, x in zip(names, leaves, strict=True) if n != ".key"}
    inputs |= {"frames": frames, "active": active, "reset": reset}
    if model.global_memory:
        inputs["draw"] = jax.ShapeDtypeStruct((1, model.global_size), jnp.float32)

    step = _Step(model, fold(model, variables), interface)
    for name, x in inputs.items():
        step.g.input(name, x.shape, x.dtype)
    given = {n: f"memory{n}" for n in names if n != ".key"}
    after, labelled = step.write(given)
    outputs: dict[str, Any] = {
        "labels": jax.ShapeDtypeStruct((1, *interface.label_size), jnp.uint8),
        "confidence": jax.ShapeDtypeStruct((1,), jnp.float32),
        "similarity": jax.ShapeDtypeStruct((1,), jnp.float32),
        "admitted": jax.ShapeDtypeStruct((1,), jnp.bool_),
    }
    for name in given:
        shape = inputs[f"memory{name}"]
        step.g.output(f"next_memory{name}", after[name], shape.shape, shape.dtype)
    for name, shape in outputs.items():
        step.g.output(name, labelled[name], shape.shape, shape.dtype)
    outputs = {f"next_memory{n}": inputs[f"memory{n}"] for n in given} | outputs

    def typed(tensors: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"name": name, "shape": list(x.shape), "dtype": str(x.dtype)}
            for name, x in tensors.items()
        ]

    about = {"memory": names, "inputs": typed(inputs), "outputs": typed(outputs)}
    return step.g.serialise("dmnet_step"), about


class _Step:
    """Writes one step into `g`; methods mirror the functions of `streaming.network`."""

    def __init__(self, model: DMNet, weights: Weights, interface: Interface) -> None:
        self.g = Graph()
        self.model, self.weights, self.interface = model, weights, interface
        self.grid = interface.size[0] // 32, interface.size[1] // 32

    def write(self, leaves: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """From the memory's leaves by name to those after the step, and the outputs."""
        g = self.g
        local, reference, global_, frame = self.reset(leaves)
        features = self.encode()
        top = g.nhwc(features["top"])
        own = self.own(features["top"])
        x = self.aggregate_local(local, features["top"], own)
        stored: dict[str, str] = {}
        if self.model.global_memory:
            itself = self.global_key_value(features["top"])
            stored = {".key": itself.key, ".value": itself.value}
            x = self.aggregate_global(global_, itself, x)
        logits = self.decode(x, features)

        confidence = self.confidence(logits)
        similarity, admitted = self.judge(reference, top, confidence, stored)
        in_local = g.add("And", "active", self.finite(top, *own.values()))
        after = {
            **self.push(".local", local, own, frame, in_local),
            **self.push(".reference", reference, {"": top}, frame, admitted),
            **self.push(".global_", global_, stored, frame, admitted),
            ".frame": g.add("Add", frame, g.cast("active", np.int32)),
        }
        size = self.interface.label_size
        enlarged = g.enlarge(logits, (1, self.model.num_classes, *size))
        labels = g.cast(g.add("ArgMax", enlarged, axis=1, keepdims=0), np.uint8)
        return after, {
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

        def ring(name: str, capacity: int, where: str) -> Ring:
            start = f"{name}.slots"
            return Ring(
                {n.removeprefix(start): x for n, x in leaves.items() if start in n},
                g.add("Where", where, np.int32(EMPTY), leaves[f"{name}.stamp"]),
                g.add("Where", where, np.int32(0), leaves[f"{name}.count"]),
                capacity,
            )

        local_size = self.model.local_size if self.model.local != "none" else 1
        return (
            ring(".local", local_size, window),
            ring(".reference", 1, everything),
            ring(".global_", self.model.global_size, everything),
            g.add("Where", everything, np.int32(0), leaves[".frame"]),
        )

    def encode(self) -> dict[str, str]:
        """The maps that the decoder and the memories need of the frame."""
        g, padding, weights = self.g, self.model.encoder, self.weights["encoder"]
        size = list(self.interface.size)

        def filtered(x: str, layer: Weights, stride: int, depthwise: bool) -> str:
            pads = [pad_3x3(n, stride, padding) for n in size]
            size[:] = [n // stride for n in size]
            options: Any = {"stride": stride, "pads": pads, "depthwise": depthwise}
            return g.relu6(g.conv(x, layer, **options))

        x = g.cast(g.nchw("frames"), np.float32)
        mean, deviation = (0.5, 0.5) if padding == "keras" else (MEAN, DEVIATION)
        scale = 1 / (255 * np.float64(deviation))
        shift = -np.float64(mean) / deviation
        for op, values in (("Mul", scale), ("Add", shift)):
            x = g.add(op, x, np.float32(values).reshape(1, -1, 1, 1))
        x = filtered(x, weights["stem"], 2, False)
        outputs, index = [], 0
        for _, channels, repeats, first_stride in STAGES:
            for repeat in range(repeats):
                block = weights[f"block{index}"]
                stride = first_stride if repeat == 0 else 1
                y = g.relu6(g.conv(x, block["expand"]))
                y = filtered(y, block["depthwise"], stride, True)
                if "project" in block:
                    y = g.conv(y, block["project"])
                    inputs = block["expand"]["kernel"].shape[2]
                    if stride == 1 and channels == inputs:
                        y = g.add("Add", y, x)
                x = y
                index += 1
            outputs.append(x)
        deep, deepest = outputs[5:]
        top = g.add(
            "Add",
            g.conv(deepest, weights["lateral8"]),
            g.conv(deep, weights["lateral7"]),
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

    def key_value(self, layer: Weights, x: str) -> Pair:
        sizes = [self.model.key_channels, self.model.value_channels]
        return Pair(*self.g.split(self.g.nhwc(self.g.conv(x, layer)), sizes, 3))

    def global_key_value(self, x: str) -> Pair:
        weights = self.weights
        local = weights.get("local_key_value")
        return self.key_value(weights.get("global_key_value", local), x)

    def own(self, top: str) -> dict[str, str]:
        """What the local memory keeps of a frame, by the leaves' names, NHWC."""
        g, weights = self.g, self.weights
        if self.model.local == "none":
            return {}
        if self.model.local == "nl":
            pair = self.key_value(weights["local_key_value"], top)
            return {".key": pair.key, ".value": pair.value}
        cell = weights["recurrent"]
        if self.model.local != "clstm":
            top = g.conv(top, cell["input_filter"], depthwise=True)
        return {"": g.nhwc(g.conv(top, cell["input"]))}

    def aggregate_local(self, ring: Ring, top: str, own: dict[str, str]) -> str:
        model, g = self.model, self.g
        if model.local == "none":
            return top
        # Rows of slots and frame together: the slots oldest first, then the frame;
        # before the video's start its oldest frame stands in.
        length = model.local_size
        after = g.add("Add", ring.count, np.arange(length, dtype=np.int32))
        slots = g.add("Mod", after, np.int32(length))
        rows = g.add("Concat", slots, np.array([length], np.int32), axis=0)
        first = g.add("Sub", np.int32(length), self.size(ring))
        index = g.add("Max", first, np.arange(length + 1, dtype=np.int32))
        rows = g.add("Gather", rows, index)
        window = {
            name: g.add("Gather", self.joined(ring, own, name), rows, axis=1)
            for name in own
        }
        if model.local == "nl":
            pair = Pair(own[".key"], own[".value"])
            return self.attend(pair, Pair(window[".key"], window[".value"]), length + 1)
        channels = WIDTH if model.local != "clstm" else 4 * WIDTH
        frames = g.nchw(g.reshape(window[""], length + 1, *self.grid, channels))
        inputs = g.split(frames, [1] * (length + 1), 0)
        if model.local == "clstm":
            return self.conv_lstm(inputs)
        temporal = self.bottleneck_lstm(inputs)
        if model.local == "blstm":
            return temporal
        query = self.key_value(self.weights["local_key_value"], temporal)
        return self.attend(query, query, 1)

    def joined(self, ring: Ring, own: dict[str, str], name: str) -> str:
        row = self.g.add("Unsqueeze", own[name], integers([1]))
        return self.g.add("Concat", ring.slots[name], row, axis=1)

    def bottleneck_lstm(self, inputs: list[str]) -> str:
        g, weights = self.g, self.weights["recurrent"]

        def gates(x: str, count: int) -> list[str]:
            kernel = weights["gates"]["kernel"][..., (4 - count) * WIDTH :]
            x = g.conv(x, weights["gate_filter"], depthwise=True)
            return g.split(g.conv(x, {"kernel": kernel}), [WIDTH] * count, 1)

        cell, hidden = self.lstm(None, *gates(inputs[0], 3))
        for x in inputs[1:]:
            x = g.add("Add", g.conv(hidden, weights["hidden"]), x)
            f, i, c, o = gates(x, 4)
            cell, hidden = self.lstm((f, cell), i, c, o)
        return hidden

    def conv_lstm(self, inputs: list[str]) -> str:
        g, hidden = self.g, ""
        before: tuple[str, str] | None = None
        for x in inputs:
            if before is not None:
                x = g.add("Add", g.conv(hidden, self.weights["recurrent"]["hidden"]), x)
            i, f, o, c = g.split(x, [WIDTH] * 4, 1)
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
        g, model = self.g, self.model
        rows = min(model.num_reads, model.global_size)
        slots, size = np.arange(ring.capacity, dtype=np.int32), self.size(ring)
        draw = g.reshape("draw", ring.capacity)
        score = g.add("Where", g.add("Less", slots, size), draw, np.float32(-1))
        index = g.top_k(score, rows)
        empty = g.add("Equal", ring.count, np.int32(0))
        readable = g.add("Less", g.cast(index, np.int32), size)
        readable = g.add("Or", readable, empty)

        def read(name: str, mine: str) -> str:
            mine = g.add("Unsqueeze", mine, integers([1]))
            slots = g.add("Gather", ring.slots[name], index, axis=1)
            return g.add("Where", empty, mine, slots)

        items = Pair(read(".key", itself.key), read(".value", itself.value))
        return self.attend(self.global_key_value(x), items, rows, readable)

    def attend(
        self, query: Pair, items: Pair, rows: int, readable: str | None = None
    ) -> str:
        """Readout beside the query's value, [1, 256, h, w]; readable bool [rows]."""
        g, model = self.g, self.model
        (h, w), positions = self.grid, self.grid[0] * self.grid[1]
        scale = np.float32(1 / np.sqrt(model.key_channels))
        q = g.add("Mul", g.reshape(query.key, positions, -1), scale)
        k = g.reshape(items.key, rows * positions, -1)
        v = g.reshape(items.value, rows * positions, -1)
        logits = g.add("MatMul", q, g.add("Transpose", k, perm=[1, 0]))
        if readable is not None:
            bias = g.add("Where", readable, np.float32(0), _NEVER)
            wide = g.add("Expand", g.reshape(bias, rows, 1), integers([rows, positions]))
            logits = g.add("Add", logits, g.reshape(wide, 1, rows * positions))
        readout = g.add("MatMul", g.add("Softmax", logits, axis=-1), v)
        own = g.reshape(query.value, positions, -1)
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
        g, thresholds = self.g, self.weights["thresholds"]
        latest = g.reshape(ring.slots[""], 1, *self.grid, WIDTH)
        axes = integers([1, 2, 3])
        apart = g.add("ReduceSumSquare", g.add("Sub", latest, top), axes, keepdims=0)
        similarity = g.add("Neg", g.add("Sqrt", apart))
        first = g.add("Equal", ring.count, np.int32(0))
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
        total: Value = sums[0]
        for x in sums[1:]:
            total = g.add("Add", total, x)
        return g.add("Less", total, np.float32(np.inf))

    def size(self, ring: Ring) -> str:
        return self.g.add("Min", ring.count, np.int32(ring.capacity))

    def push(
        self, name: str, ring: Ring, items: dict[str, str], stamp: str, where: str
    ) -> dict[str, str]:
        """The ring's leaves with items [1, h, w, C] over its oldest slot, or as is."""
        g = self.g
        head = g.cast(g.add("Mod", ring.count, np.int32(ring.capacity)), np.int64)
        place = g.reshape(g.add("Concat", integers([0]), head, axis=0), 1, 2)

        def write(slots: str, x: str) -> str:
            x = g.add("Where", where, x, g.add("GatherND", slots, place))
            return g.add("ScatterND", slots, place, x)

        count = g.add("Add", ring.count, g.cast(where, np.int32))
        limit = np.int32(_LAST_COUNT // ring.capacity * ring.capacity)
        over = g.add("Equal", count, limit)
        return {
            **{f"{name}.slots{n}": write(ring.slots[n], x) for n, x in items.items()},
            f"{name}.stamp": write(ring.stamp, stamp),
            f"{name}.count": g.add("Where", over, np.int32(ring.capacity), count),
        }
