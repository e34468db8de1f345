"""One time step of DMNet over folded weights: what a stream runs for each frame.

The same function of frame and memory as `DMNet.step`, up to rounding, with the work
that repeats from frame to frame done once:

- the local memory holds what the local aggregation makes of a frame alone (its input
  projection, or its key and value) instead of the frame's features;
- a frame's key and value for the global memory are computed when it is admitted;
- the recurrent cells start from zero, so their first step skips what that silences.

Streams start, stop and reset independently, by masks: nothing is compiled again.

Shapes: `B` streams, `H W` frame size (multiples of 32), `h w` = H/32 W/32.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory, RingBuffer
from dmnet_jax.models.dmnet import DMNet, Features, Output
from dmnet_jax.nn import mobilenet
from dmnet_jax.nn.attention import KeyValue, NonLocal
from dmnet_jax.nn.layers import Conv3x3, Dense1x1, Depthwise3x3, relu6
from dmnet_jax.nn.pooling import max_pool_5x5
from dmnet_jax.nn.resizing import upsample_2x
from dmnet_jax.streaming.folding import Weights


def init_memory(
    model: DMNet, streams: int, size: tuple[int, int], key: Array
) -> DualMemory:
    """Empty memories for streams of frames `size` = (H, W), leaves [B, ...].

    With the same key a stream makes the same random reads as one that starts from
    `DMNet.init_memory`. The key is kept as raw bits, which any runtime can hold.
    """
    h, w = size[0] // 32, size[1] // 32

    def map_of(channels: int) -> Any:
        return jax.ShapeDtypeStruct((h, w, channels), model.dtype)

    key_value = KeyValue(map_of(model.key_channels), map_of(model.value_channels))
    recent = {
        "none": {},
        "nl": key_value,
        "clstm": map_of(4 * model.width),
        "blstm": map_of(model.width),
        "ela": map_of(model.width),
    }[model.local]

    def one(key: Array) -> DualMemory:
        memory = mem.init_dual(
            map_of(model.width),
            local_size=1,
            global_size=model.global_size,
            key=jax.random.key_data(key),
            stored=key_value if model.global_memory else {},
        )
        local_size = model.local_size if model.local != "none" else 1
        return replace(memory, local=mem.init(recent, capacity=local_size))

    return jax.vmap(one)(jax.random.split(key, streams))


def step(
    model: DMNet, weights: Weights, memory: DualMemory, frames: Array, active: Array
) -> tuple[DualMemory, Output]:
    """One frame of each stream.

    Args:
        model: the network whose variables were folded.
        weights: of `fold`.
        memory: of `init_memory`, or of the step before.
        frames: uint8 [B, H, W, 3], RGB.
        active: bool [B], which streams have a frame. The memory of the others is
            not touched, and their output means nothing.
    """
    features = encode(model, weights["encoder"], frames)
    return update(model, weights, memory, features, active)


def update(
    model: DMNet,
    weights: Weights,
    memory: DualMemory,
    features: Features,
    active: Array,
) -> tuple[DualMemory, Output]:
    """`step` from the frame's features on."""
    own = _own(model, weights, features.top)
    x = _aggregate_local(model, weights, memory.local, features.top, own)
    if model.global_memory:
        x = _aggregate_global(model, weights, memory, features.top, x, active)
    logits = decode(weights["decoder"], x, features, model.dtype).astype(jnp.float32)
    memory, gates = _remember(model, weights, memory, features.top, own, logits, active)
    return memory, Output(logits, *gates)


def encode(model: DMNet, weights: Weights, frames: Array) -> Features:
    """Encodes frames uint8 [B, H, W, 3]."""
    dtype, padding = model.dtype, model.encoder
    x = mobilenet.normalise(frames, padding).astype(dtype)
    x = relu6(_conv(weights["stem"], x, dtype, stride=2, padding=padding))
    outputs, index = [], 0
    for _, features, repeats, first_stride in model.stages:
        for repeat in range(repeats):
            block = weights[f"block{index}"]
            stride = first_stride if repeat == 0 else 1
            y = relu6(_dense(block["expand"], x, dtype))
            filtering = Depthwise3x3(stride, True, padding, dtype)
            y = relu6(_apply(filtering, block["depthwise"], y))
            if "project" in block:
                y = _dense(block["project"], y, dtype)
                if stride == 1 and features == x.shape[-1]:
                    y += x
            x = y
            index += 1
        outputs.append(x)
    quarter, eighth, sixteenth_64, sixteenth_96, deep160, deepest = outputs[1:]
    top = relu6(
        _dense(weights["lateral8"], deepest, dtype)
        + _dense(weights["lateral7"], deep160, dtype)
    )
    return Features(quarter, eighth, sixteenth_64, sixteenth_96, top)


def decode(weights: Weights, top: Array, features: Features, dtype: Any) -> Array:
    """Logits [B, H/4, W/4, num_classes] of top [B, h, w, width] and the finer maps."""

    def dense(name: str, x: Array) -> Array:
        return _dense(weights[name], x, dtype)

    def pool(name: str, x: Array) -> tuple[Array, Array]:
        """The sum of the stages, and the last of them."""
        top = x
        for stage in range(len(weights[name])):
            pooled = max_pool_5x5(top)
            top = _dense(weights[name][f"conv{stage}"], pooled, dtype)
            x += top
        return x, top

    x = upsample_2x(dense("adapt4", pool("crp4", top)[0]))
    fine = dense("lateral5", features.sixteenth_64)
    x = relu6(fine + dense("lateral6", features.sixteenth_96) + x)
    x = upsample_2x(dense("adapt3", pool("crp3", x)[0]))
    x = relu6(dense("lateral4", features.eighth) + x)
    x = upsample_2x(dense("adapt2", pool("crp2", x)[0]))
    x = relu6(dense("lateral3", features.quarter) + x)
    x, last = pool("crp1", x)
    pooled = _conv(weights["pooled_classifier"], max_pool_5x5(last), dtype)
    return _conv(weights["classifier"], x, dtype) + pooled


def key_value(model: DMNet, weights: Weights, x: Array) -> KeyValue:
    """Key and value by one convolution: [B, h, w, width] -> leaves [B, h, w, ...]."""
    both = _conv(weights, x, model.dtype)
    return KeyValue(*jnp.split(both, [model.key_channels], axis=-1))


def _own(model: DMNet, weights: Weights, top: Array) -> Any:
    """What the local memory keeps of a frame."""
    if model.local == "none":
        return {}
    if model.local == "nl":
        return key_value(model, weights["local_key_value"], top)
    cell = weights["recurrent"]
    if model.local == "clstm":
        return _conv(cell["input"], top, model.dtype)
    filtering = Depthwise3x3(use_bias=True, dtype=model.dtype)
    filtered = _apply(filtering, cell["input_filter"], top)
    return _dense(cell["input"], filtered, model.dtype)


def _aggregate_local(
    model: DMNet, weights: Weights, local: RingBuffer, top: Array, own: Any
) -> Array:
    if model.local == "none":
        return top
    readout = jax.vmap(lambda ring: mem.read_last(ring, model.local_size))(local)
    # Before the video's start its oldest frame stands in: a still picture.
    first = model.local_size - readout.mask.sum(axis=1)
    index = jnp.maximum(jnp.arange(model.local_size + 1), first[:, None])
    window = jax.tree.map(
        lambda slots, x: jnp.take_along_axis(
            jnp.concatenate([slots, x[:, None]], axis=1),
            index[..., None, None, None],
            axis=1,
        ),
        readout.items,
        own,
    )
    if model.local == "nl":
        return _attend(model, own, window, jnp.ones(index.shape, bool))
    if model.local == "clstm":
        return _conv_lstm(weights["recurrent"], window, model.dtype)
    temporal = _bottleneck_lstm(weights["recurrent"], window, model.dtype)
    if model.local == "blstm":
        return temporal
    query = key_value(model, weights["local_key_value"], temporal)
    itself = jax.tree.map(lambda x: x[:, None], query)
    return _attend(model, query, itself, jnp.ones((len(top), 1), bool))


def _bottleneck_lstm(weights: Weights, window: Array, dtype: Any) -> Array:
    """Input projections [B, T, h, w, width] -> hidden state [B, h, w, width]."""

    def gates(x: Array, names: slice) -> list[Array]:
        layer = {"kernel": weights["gates"]["kernel"][..., names]}
        x = _apply(Depthwise3x3(dtype=dtype), weights["gate_filter"], x)
        x = _dense(layer, x, dtype)
        return jnp.split(x, x.shape[-1] // width, axis=-1)

    width = window.shape[-1]
    i, c, o = gates(window[:, 0], slice(width, None))
    cell = jax.nn.sigmoid(i) * jnp.tanh(c)
    for t in range(1, window.shape[1]):
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        joined = window[:, t] + _dense(weights["hidden"], hidden, dtype)
        f, i, c, o = gates(joined, slice(None))
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
    return jax.nn.sigmoid(o) * jnp.tanh(cell)


def _conv_lstm(weights: Weights, window: Array, dtype: Any) -> Array:
    """Input gates [B, T, h, w, 4 width] -> hidden state [B, h, w, width]."""
    i, _, o, g = jnp.split(window[:, 0], 4, axis=-1)
    cell = jax.nn.sigmoid(i) * jnp.tanh(g)
    for t in range(1, window.shape[1]):
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        gates = window[:, t] + _conv(weights["hidden"], hidden, dtype)
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell)


def _aggregate_global(
    model: DMNet,
    weights: Weights,
    memory: DualMemory,
    top: Array,
    x: Array,
    active: Array,
) -> Array:
    def read(m: DualMemory) -> mem.Readout:
        return mem.read_uniform(m.global_, model.num_reads, mem.read_key(m))

    readout = jax.vmap(read)(memory)
    # Where nothing can be read, the current frame stands in for its own memory.
    empty = ~readout.mask.any(axis=1)
    itself = _project_if_any(model, weights, top, empty & active)
    items = jax.tree.map(
        lambda slots, mine: jnp.where(
            empty.reshape(-1, *[1] * (slots.ndim - 1)), mine[:, None], slots
        ),
        readout.items,
        itself,
    )
    query = _global_key_value(model, weights, x)
    return _attend(model, query, items, readout.mask | empty[:, None])


def _remember(
    model: DMNet,
    weights: Weights,
    memory: DualMemory,
    top: Array,
    own: Any,
    logits: Array,
    active: Array,
) -> tuple[DualMemory, tuple[Array, Array, Array]]:
    """`memory.advance` for active streams; keys and values only of what is admitted."""
    thresholds = weights["thresholds"]
    policy = mem.all_of(
        mem.confident(thresholds["min_confidence"]),
        mem.dissimilar(thresholds["max_similarity"]),
    )

    def judge(m: DualMemory, top: Array, logits: Array) -> tuple[Array, Array, Array]:
        confidence = mem.confidence(jax.nn.softmax(logits))
        similarity = mem.similarity(mem.latest(m.reference), top)
        similarity = jnp.where(m.reference.count > 0, similarity, -jnp.inf)
        candidate = mem.Candidate(top, confidence, m.frame)
        admitted = mem.admit(m.reference, candidate, policy=policy)[1]
        return confidence, similarity, admitted

    confidence, similarity, admitted = jax.vmap(judge)(memory, top, logits)
    admitted &= active
    stored: Any = {}
    if model.global_memory:
        stored = _project_if_any(model, weights, top, admitted)
        admitted &= _finite(stored)

    def push(m: DualMemory, top: Array, own: Any, stored: Any, *where: Array) -> Any:
        in_local, in_global, counted = where
        return replace(
            m,
            local=mem.push(m.local, own, stamp=m.frame, where=in_local),
            reference=mem.push(m.reference, top, stamp=m.frame, where=in_global),
            global_=mem.push(m.global_, stored, stamp=m.frame, where=in_global),
            frame=m.frame + counted,
        )

    in_local = active & _finite((top, own))
    memory = jax.vmap(push)(memory, top, own, stored, in_local, admitted, active)
    return memory, (confidence, similarity, admitted)


def _global_key_value(model: DMNet, weights: Weights, x: Array) -> KeyValue:
    shared = "global_key_value" not in weights
    layer = weights["local_key_value" if shared else "global_key_value"]
    return key_value(model, layer, x)


def _project_if_any(
    model: DMNet, weights: Weights, x: Array, wanted: Array
) -> KeyValue:
    """`_global_key_value` of all streams if wanted [B] is set for one, else zeros."""

    def project(x: Array) -> KeyValue:
        return _global_key_value(model, weights, x)

    def zeros(x: Array) -> KeyValue:
        return KeyValue(
            jnp.zeros((*x.shape[:-1], model.key_channels), x.dtype),
            jnp.zeros((*x.shape[:-1], model.value_channels), x.dtype),
        )

    return lax.cond(wanted.any(), project, zeros, x)


def _finite(tree: Any) -> Array:
    """bool [B], whether a row's leaves [B, ...] hold no NaN or infinity."""
    rows = [jnp.isfinite(x).all(axis=range(1, x.ndim)) for x in jax.tree.leaves(tree)]
    return jnp.stack(rows).all(axis=0)


def _attend(model: DMNet, query: KeyValue, items: KeyValue, mask: Array) -> Array:
    attention: Any = NonLocal(dtype=model.dtype)
    return attention.apply({}, query, items, mask, train=False)


def _dense(layer: Weights, x: Array, dtype: Any) -> Array:
    features = layer["kernel"].shape[-1]
    return _apply(Dense1x1(features, "bias" in layer, dtype=dtype), layer, x)


def _conv(layer: Weights, x: Array, dtype: Any, **options: Any) -> Array:
    features = layer["kernel"].shape[-1]
    convolution = Conv3x3(features, use_bias="bias" in layer, dtype=dtype, **options)
    return _apply(convolution, layer, x)


def _apply(module: Any, layer: Weights, x: Array) -> Array:
    """The layers of `nn`, so that their formulation is chosen there alone."""
    return module.apply({"params": layer}, x)
