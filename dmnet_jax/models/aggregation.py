"""How DMNet reads its memories: local and active global aggregation (section 2).

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
