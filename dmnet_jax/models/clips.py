"""DMNet on many frames: rolling `DMNet.update` over a video, and training clips.

The functions take a bound `DMNet`. Shapes as in `models/dmnet.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory
from dmnet_jax.models.features import Decoded, EncodedClip, flat
from dmnet_jax.models.protocol import ClipBatch, Output
from dmnet_jax.models.scales import decode

# How `nn.scan` over time lifts the network's variables.
ROLLED: dict[str, Any] = {
    "variable_broadcast": ("params", "thresholds"),
    "split_rngs": {"params": False, "dropout": True},
}


def decode_frames(model: Any, frames: Array) -> Decoded:
    """Decodes frames [N, H, W, 3] without the memories of a `DMNet.only_corrects`."""
    features = model.encode(frames)
    logits, fine = decode(model, features.top, features)
    fine = fine if model.stores_masks else None
    return Decoded(logits, fine, features.top, features.appearance)


def roll(
    model: Any, memory: DualMemory, frames: Array, *, train: bool = False
) -> tuple[DualMemory, Output]:
    """Scans `update` over frames [B, T, H, W, 3]; outputs have shape [B, T, ...].

    All frames are encoded in one batch.
    """
    batch, length = frames.shape[:2]
    features = model.encode(flat(frames), train=train)
    by_time = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(batch, length, *x.shape[1:]), 1, 0), features
    )
    scan = nn.scan(
        lambda module, memory, features: module.update(memory, features, train=train),
        **ROLLED,
    )
    memory, outputs = scan(model, memory, by_time)
    return memory, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)


def clip(
    model: Any,
    batch: ClipBatch,
    key: Array,
    *,
    train: bool = False,
    batch_statistics: bool = False,
    memory_gradient: bool = False,
) -> Output:
    """The paper's training clip: past frames and a local window; scores the last one.

    The memories are filled as a stream would fill them, then `update` runs once for
    the last frame. Without `memory_gradient`, no gradient flows into the encoder
    through the remembered frames, which saves a backward pass for each of them.
    """
    videos, length = batch.frames.shape[:2]
    window = batch.frames[:, : length - 1 if model.local != "none" else 0]
    past = batch.past if model.stores_features else batch.past[:, :0]
    current, older = batch.frames[:, -1], jnp.concatenate([window, past], axis=1)
    if memory_gradient or older.shape[1] == 0:
        frames = jnp.concatenate([current, flat(older)])
        features = model.encode(frames, train=batch_statistics)
        tops = features.top[videos:]
        features = jax.tree.map(lambda x: x[:videos], features)
    else:
        features = model.encode(current, train=batch_statistics)
        tops = model.encode(flat(older), train=batch_statistics).top
        tops = jax.lax.stop_gradient(tops)
    tops = tops.reshape(videos, older.shape[1], *tops.shape[1:])
    seen = EncodedClip(
        features,
        tops[:, : window.shape[1]],
        batch.frames_mask[:, : window.shape[1]],
        tops[:, window.shape[1] :],
        batch.past_mask[:, : past.shape[1]],
    )
    return clip_of_features(model, seen, key, train=train)


def clip_of_features(
    model: Any, batch: EncodedClip, key: Array, *, train: bool = False
) -> Output:
    """Like `clip`, for frames that are already encoded."""
    videos, slots = batch.past_mask.shape
    size = 32 * batch.features.top.shape[1], 32 * batch.features.top.shape[2]
    memory = model.init_memory(videos, size, key, global_size=max(1, slots))

    def each(function: Callable[[Array], Any], tops: Array) -> Any:
        return jax.tree.map(
            lambda x: x.reshape(*tops.shape[:2], *x.shape[1:]), function(flat(tops))
        )

    if slots:
        stored = each(model.stored, batch.past)
        memory = jax.vmap(lambda m, t, v, s: mem.prefill(m, t, v, stored=s))(
            memory, batch.past, batch.past_mask, stored
        )
    if batch.window.shape[1]:
        recent = each(model.recent, batch.window)
        memory = jax.vmap(mem.prefill_local)(memory, recent, batch.window_mask)
    return model.update(memory, batch.features, train=train)[1]
