"""Forward functions for training: functions of a bound model and a batch.

They are called as `model.apply(variables, batch, key, method=...)` with a loader's
batch. Each training stage selects one by its name in `FORWARD`.
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
    """Scores the last frame of each clip, see `VideoSegmenter.clip`."""
    return model.clip(ClipBatch.of(batch), key, **options)


def features(
    model: DMNet, batch: Batch, key: Array, *, train: bool = False, **options: Any
) -> Output:
    """Like `clip`, for encoded frames of a `FeatureCache`. The encoder is frozen."""
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
    """Scores every frame of a sequence, with admission, as in a stream.

    The outputs equal those of `__call__`. The gradient is truncated: it flows through
    the memory only within chunks of `truncate` frames. Chunks are rematerialized, so
    only one chunk's activations are held, however long the sequence.

    Args:
        model: a bound model.
        batch: `frames` [B, T, H, W, 3], where T is a multiple of `truncate`, and
            `frames_mask` bool [B, T]; False for frames before the start of the video,
            which are not remembered.
        key: PRNG key of the memory reads.
        truncate: number of frames per chunk.
        train: enables dropout.
        batch_statistics: see `VideoSegmenter.clip`.
        memory_gradient: ignored.

    Returns:
        Outputs of shape [B, T, ...].
    """
    frames, mask = batch["frames"], batch["frames_mask"]
    videos, length, height, width = frames.shape[:4]
    memory = model.init_memory(
        *(videos, (height, width), key), global_size=min(length, model.global_size)
    )

    def by_piece(x: Array) -> Array:  # [B, T, ...] -> [pieces, truncate, B, ...]
        return jnp.moveaxis(x, 1, 0).reshape(-1, truncate, videos, *x.shape[2:])

    def piece(
        module: DMNet, memory: DualMemory, inputs: tuple[Array, Array]
    ) -> tuple[DualMemory, Output]:
        frames, active = inputs
        features = module.encode(flat(frames), train=batch_statistics)
        features = jax.tree.map(
            lambda x: x.reshape(truncate, videos, *x.shape[1:]), features
        )
        memory = jax.lax.stop_gradient(memory)
        roll = nn.scan(partial(_update, train=train), **ROLLED)
        return roll(module, memory, (features, active))

    # Running statistics are carried from chunk to chunk if they are updated.
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
    """Like `rollout`, for encoded frames of a `SequenceCache`.

    The encoder is not trained, and the gradient flows through the whole sequence.
    """
    maps = {name: jnp.moveaxis(batch[name], 1, 0) for name in FEATURES}
    look = maps.pop("appearance").astype(jnp.float32)
    maps = {name: x.astype(model.dtype) for name, x in maps.items()}
    inputs = Features(**maps, appearance=look), batch["frames_mask"].T
    length, videos, h, w, _ = inputs[0].top.shape
    slots = min(length, model.global_size)
    memory = model.init_memory(videos, (32 * h, 32 * w), key, global_size=slots)
    roll = nn.scan(partial(_update, train=train), **ROLLED)
    _, outputs = roll(model, memory, inputs)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)


def decoded_sequences(model: DMNet, batch: Batch, key: Array, **options: Any) -> Output:
    """Like `sequences`, for decoded frames of a `DMNet.only_corrects`.

    Only the modules after the decoder are trained.
    """
    stored = {n: jnp.moveaxis(batch[n], 1, 0) for n in DECODED if n in batch}
    frames = Decoded(**{"fine": None, **stored})
    length, videos, h, w, _ = frames.top.shape
    slots = min(length, model.global_size)
    memory = model.init_memory(videos, (32 * h, 32 * w), key, global_size=slots)

    def one(
        module: DMNet, memory: DualMemory, inputs: tuple[Decoded, Array]
    ) -> tuple[DualMemory, Output]:
        frame, active = inputs
        frame = Decoded(
            frame.logits.astype(jnp.float32),
            None if frame.fine is None else frame.fine.astype(model.dtype),
            frame.top.astype(model.dtype),
            frame.appearance.astype(jnp.float32),
        )
        return module.correct(memory, frame, {}, active)

    inputs = frames, batch["frames_mask"].T
    _, outputs = nn.scan(one, **ROLLED)(model, memory, inputs)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), outputs)


def _update(
    module: DMNet, memory: DualMemory, inputs: tuple[Features, Array], *, train: bool
) -> tuple[DualMemory, Output]:
    features, active = inputs
    return module.update(memory, features, active=active, train=train)


FORWARD: Mapping[str, Forward] = {
    "clip": clip,
    "features": features,
    "rollout": rollout,
    "sequences": sequences,
    "decoded_sequences": decoded_sequences,
}
"""Forward functions by the names used in `training.stages.Stage.recipe`."""
