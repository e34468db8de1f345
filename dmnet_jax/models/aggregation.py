"""How DMNet reads and fills its memories: local and active global aggregation.

Section 2 of the paper.

The functions take a bound `DMNet`. Shapes as in `models/dmnet.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory
from dmnet_jax.nn.attention import KeyValue


def aggregate_local(
    model: Any, memory: DualMemory, top: Array, recent: Any, train: bool
) -> Array:
    """Local aggregation (section 2.2): [B, h, w, width] -> same shape."""
    if model.local == "none":
        return top
    window = jax.vmap(  # [B, tau + 1, h, w, ...], oldest first
        lambda m, x: mem.read_window(m.local, model.local_size, x)
    )(memory, recent)
    if model.local == "nl":
        mask = jnp.ones((len(top), model.local_size + 1), bool)
        return model.attend(recent, window, mask, train=train)
    temporal = model.recurrent(window)
    if model.local != "ela":
        return temporal
    query = model.local_key_value(temporal)
    frame = jax.tree.map(lambda x: x[:, None], query)  # a memory of one frame
    mask = jnp.ones((len(top), 1), bool)
    return model.attend(query, frame, mask, train=train)


def aggregate_global(
    model: Any, memory: DualMemory, top: Array, x: Array, active: Array, train: bool
) -> Array:
    """Active global aggregation (section 2.3): [B, h, w, width] -> same shape."""
    query = model.stored(x)
    readout = read_global(model, memory)
    # Where the memory is empty, the current frame replaces the readout.
    empty = ~readout.mask.any(axis=1)
    current = stored_if(model, empty & active, top)
    readout = jax.vmap(mem.stand_in)(readout, current)
    return model.attend(query, readout.items, readout.mask, train=train)


def read_global(model: Any, memory: DualMemory) -> mem.Readout:
    """Reads `num_reads` frames of the global memory, leaves [B, n, ...]."""
    return jax.vmap(
        lambda m: mem.read_uniform(m.global_, model.num_reads, mem.read_key(m))
    )(memory)


def stored_if(model: Any, condition: Array, top: Array) -> Any:
    """Returns `stored(top)` if any of `condition`, bool [B], is set, else zeros."""
    if not model.stores_features or model.is_initializing():
        return model.stored(top)

    def stored(module: Any, x: Array) -> KeyValue:
        return module.stored(x)

    def zeros(module: Any, x: Array) -> KeyValue:
        shape = x.shape[:-1]
        return KeyValue(
            jnp.zeros((*shape, module.key_channels), x.dtype),
            jnp.zeros((*shape, module.value_channels), x.dtype),
        )

    return nn.cond(condition.any(), stored, zeros, model, top)


def remember(
    model: Any,
    memory: DualMemory,
    top: Array,
    recent: Any,
    logits: Array,
    stored: Any,
    active: Array,
) -> tuple[DualMemory, tuple[Array, Array, Array]]:
    """Adds a frame to the memories, to the global one if it is admitted.

    Args:
        model: a bound `DMNet`.
        memory: memory of the frames before, leaves [B, ...].
        top: [B, h, w, width], features of the frame.
        recent: what the local memory stores for it.
        logits: [B, 8h, 8w, C], from which its confidence is computed.
        stored: what the global memory stores for it; None to compute it if needed.
        active: bool [B], which videos have a frame.

    Returns:
        The updated memory and (confidence, similarity, admitted), each [B].
    """
    policy = mem.all_of(
        mem.confident(model.min_confidence.value),
        mem.dissimilar(model.max_similarity.value),
    )

    def judge(m: DualMemory, top: Array, logits: Array) -> tuple[Array, ...]:
        confidence = mem.confidence(jax.nn.softmax(logits))
        similarity = mem.similarity(mem.latest(m.reference), top)
        similarity = jnp.where(m.reference.count > 0, similarity, -jnp.inf)
        return confidence, similarity, mem.judge(m, top, confidence, policy=policy)

    confidence, similarity, admissible = jax.vmap(judge)(memory, top, logits)
    if stored is None:
        stored = stored_if(model, admissible & active, top)
    memory, admitted = jax.vmap(
        lambda m, x, admitted, recent, stored, where: mem.remember(
            m, x, admitted, recent=recent, stored=stored, where=where
        )
    )(memory, top, admissible, recent, stored, active)
    return memory, (confidence, similarity, admitted)
