"""What one training step asks of a network: a function of a bound model and a batch.

`model.apply(variables, batch, key, method=...)` with a loader's batch. A stage of a
config has one of these, by name in `FORWARD`; the training step takes whatever it is
given.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax.memory import DualMemory
from dmnet_jax.models.clips import ROLLED, clip_of_features
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.features import (
    DECODED,
    FEATURES,
    Decoded,
    EncodedClip,
    Features,
    flat,
)
from dmnet_jax.models.protocol import ClipBatch, Output, VideoSegmenter

Batch: TypeAlias = Mapping[str, Any]
Forward: TypeAlias = Callable[..., Output]
"""(bound model, batch, key, *, train, batch_statistics, memory_gradient, truncate)."""

_STATS = "batch_stats"


def clip(
    model: VideoSegmenter,
    batch: Batch,
    key: Array,
    *,
    truncate: int = 1,
    **options: Any,
) -> Output:
    """Clips of which the last frame is scored: `VideoSegmenter.clip`."""
    return model.clip(ClipBatch.of(batch), key, **options)


def features(
    model: DMNet, batch: Batch, key: Array, *, train: bool = False, **options: Any
) -> Output:
    """The same of a `FeatureCache`, whose frames are encoded. Trains no encoder."""
    seen = EncodedClip(
        Features(**{name: batch[name] for name in FEATURES}),
        *(batch[n] for n in ("window", "window_mask", "past", "past_mask")),
    )
    return clip_of_features(model, seen, key, train=train)


def rollout(
    model: DMNet,
    batch: Batch,
    key: Array,
    *,
    truncate: int,
    train: bool = False,
    batch_statistics: bool = False,
    memory_gradient: bool = False,
) -> Output:
    """Sequences with admission on, as a stream would see them, every frame scored.

    As `__call__` gives, but the gradient reaches back through the memory within
    pieces of `truncate` frames only, and what a piece computed is computed again
    for its gradient: however long the sequence, one piece's maps are held.

    Args:
        model: bound.
        batch: `frames` [B, T, H, W, 3], T a multiple of `truncate`, and `frames_mask`
            bool [B, T]; False where the video had not begun: not remembered.
        key: of the reads.
        truncate: frames of a piece.
        train: dropout on.
        batch_statistics: see `VideoSegmenter.clip`.
        memory_gradient: not looked at.

    Returns:
        Outputs leading with [B, T].
    """
    frames, mask = batch["frames"], batch["frames_mask"]
    videos, length, height, width = frames.shape[:4]
    memory = model.init_memory(
        *(videos, (height, width), key), global_size=min(length, model.global_size)
    )

    def by_piece(x: Array) -> Array:  # [B, T, ...] -> [pieces, truncate, B, ...]
        return jnp.moveaxis(x, 1, 0).reshape(-1, truncate, videos, *x.shape[2:])

    def piece(
        module: DMNet, memory: DualMemory, seen: tuple[Array, Array]
    ) -> tuple[DualMemory, Output]:
        frames, there = seen
        features = module.encode(flat(frames), train=batch_statistics)
        features = jax.tree.map(
            lambda x: x.reshape(truncate, videos, *x.shape[1:]), features
        )
        memory = jax.lax.stop_gradient(memory)
        roll = nn.scan(partial(_update, train=train), **ROLLED)
        return roll(module, memory, (features, there))

    # Running statistics go from piece to piece if they change at all.
    variables = dict(ROLLED)
    if batch_statistics:
        variables["variable_carry"] = _STATS
    else:
        variables["variable_broadcast"] += (_STATS,)
    roll = nn.scan(nn.remat(piece), **variables)
    _, outputs = roll(model, memory, (by_piece(frames), by_piece(mask)))
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(length, *x.shape[2:]), 0, 1), outputs
    )


def sequences(
    model: DMNet, batch: Batch, key: Array, *, train: bool = False, **options: Any
) -> Output:
    """`rollout` of a `SequenceCache`, whose frames are encoded. Trains no encoder.

    The gradient reaches back through the whole sequence.
    """
    maps = [jnp.moveaxis(batch[name], 1, 0).astype(model.dtype) for name in FEATURES]
    seen = Features(*maps), batch["frames_mask"].T
    length, videos, h, w, _ = seen[0].top.shape
    slots = min(length, model.global_size)
    memory = model.init_memory(videos, (32 * h, 32 * w), key, global_size=slots)
    roll = nn.scan(partial(_update, train=train), **ROLLED)
    _, outputs = roll(model, memory, seen)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)


def decoded_sequences(model: DMNet, batch: Batch, key: Array, **options: Any) -> Output:
    """`sequences` of frames that are decoded as well, for a `DMNet.state_alone`.

    Trains the prediction state alone. No frame is admitted anywhere.
    """
    decoded = Decoded(*(jnp.moveaxis(batch[n], 1, 0) for n in DECODED))
    length, videos, h, w, _ = decoded.top.shape
    memory = model.init_memory(videos, (32 * h, 32 * w), key)

    def one(module: DMNet, state: Any, seen: tuple[Decoded, Array]) -> tuple[Any, Any]:
        frame, there = seen
        maps = frame.fine.astype(model.dtype), frame.top.astype(model.dtype)
        logits = frame.logits.astype(jnp.float32)
        logits, state, trust = module.prediction_state(state, logits, *maps, there)
        return state, (logits, trust)

    seen = decoded, batch["frames_mask"].T
    _, found = nn.scan(one, **ROLLED)(model, memory.state, seen)
    logits, trust = (jnp.moveaxis(x, 0, 1) for x in found)
    nothing = jnp.zeros((videos, length))
    return Output(logits, nothing, nothing, nothing > 0, trust)


def _update(
    module: DMNet, memory: DualMemory, seen: tuple[Features, Array], *, train: bool
) -> tuple[DualMemory, Output]:
    features, there = seen
    return module.update(memory, features, active=there, train=train)


FORWARD: Mapping[str, Forward] = {
    "clip": clip,
    "features": features,
    "rollout": rollout,
    "sequences": sequences,
    "decoded_sequences": decoded_sequences,
}
"""By the names of `training.stages.Stage.recipe`."""
