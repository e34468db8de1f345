"""What training asks of DMNet: clips with one scored frame, and whole sequences.

Functions of a bound model: `model.apply(variables, ..., method=clips.clip)`. All end in
`DMNet.update`, the step that streams take. Shapes as in `models/dmnet.py`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dmnet_jax import memory as mem
from dmnet_jax.memory import DualMemory
from dmnet_jax.models.dmnet import ROLLED, DMNet, Features
from dmnet_jax.models.protocol import Output, where_videos

_STATS = "batch_stats"


def rollout(
    model: DMNet,
    memory: DualMemory,
    frames: Array,
    mask: Array,
    *,
    truncate: int,
    train: bool = False,
    batch_statistics: bool = False,
) -> Output:
    """A sequence with admission on, as a stream would see it; for training.

    As `__call__` gives, but the gradient reaches back through the memory within
    pieces of `truncate` frames only, and what a piece computed is computed again
    for its gradient: however long the sequence, one piece's maps are held.

    Args:
        memory: at the sequence's start.
        frames: [B, T, H, W, 3], T a multiple of `truncate`.
        mask: bool [B, T]; False where the video had not begun: not remembered.
        truncate: frames of a piece.
        train: dropout on.
        batch_statistics: see `clip`.

    Returns:
        Outputs leading with [B, T].
    """
    batch, length = mask.shape
    pieces = length // truncate

    def by_piece(x: Array) -> Array:  # [B, T, ...] -> [pieces, truncate, B, ...]
        return jnp.moveaxis(x, 1, 0).reshape(pieces, truncate, batch, *x.shape[2:])

    def one(
        module: DMNet, memory: DualMemory, seen: tuple[Features, Array]
    ) -> tuple[DualMemory, Output]:
        features, there = seen
        after, output = module.update(memory, features, train=train)
        return where_videos(there, after, memory), output

    def piece(
        module: DMNet, memory: DualMemory, seen: tuple[Array, Array]
    ) -> tuple[DualMemory, Output]:
        frames, there = seen
        features = module.encode(_flat(frames), train=batch_statistics)
        features = jax.tree.map(
            lambda x: x.reshape(truncate, batch, *x.shape[1:]), features
        )
        memory = jax.lax.stop_gradient(memory)
        return nn.scan(one, **ROLLED)(module, memory, (features, there))

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


def clip(
    model: DMNet,
    frames: Array,
    frames_mask: Array,
    past: Array,
    past_mask: Array,
    key: Array,
    *,
    train: bool = False,
    batch_statistics: bool = False,
    memory_gradient: bool = False,
) -> Output:
    """The paper's training clip: past frames and a local window, last one scored.

    The memories are filled as a stream would have filled them, then one `update`
    is made for the last frame.

    Args:
        frames: [B, T, H, W, 3], the local window, the current frame last.
        frames_mask: bool [B, T]; False where the video had not begun.
        past: [B, n, H, W, 3], earlier frames that the global memory shall hold.
        past_mask: bool [B, n].
        key: of the reads.
        train: dropout on.
        batch_statistics: normalise by the batch and update running statistics
            (mutable "batch_stats"); otherwise the running ones are used.
        memory_gradient: train the encoder through remembered frames too. Costs
            a backward pass for each.
    """
    batch, length = frames.shape[:2]
    window = frames[:, : length - 1] if model.local != "none" else frames[:, :0]
    past = past if model.global_memory else past[:, :0]
    current, older = frames[:, -1], jnp.concatenate([window, past], axis=1)
    count = older.shape[1]
    if memory_gradient or count == 0:
        features = model.encode(
            jnp.concatenate([current, _flat(older)]), train=batch_statistics
        )
        tops = features.top[batch:]
        features = jax.tree.map(lambda x: x[:batch], features)
    else:
        features = model.encode(current, train=batch_statistics)
        tops = model.encode(_flat(older), train=batch_statistics).top
        tops = jax.lax.stop_gradient(tops)
    tops = tops.reshape(batch, count, *tops.shape[1:])
    remembered = window.shape[1]
    return clip_of_features(
        model,
        features,
        tops[:, :remembered],
        frames_mask[:, :-1],
        tops[:, remembered:],
        past_mask,
        key,
        train=train,
    )


def clip_of_features(
    model: DMNet,
    features: Features,
    window: Array,
    window_mask: Array,
    past: Array,
    past_mask: Array,
    key: Array,
    *,
    train: bool = False,
) -> Output:
    """`clip` of frames that are encoded already.

    Args:
        features: of the current frames.
        window: [B, T-1, h, w, 256], `Features.top` of the frames before; [B, 0,
            ...] where there is no local memory.
        window_mask: bool [B, T-1].
        past: [B, n, h, w, 256], those of earlier frames; [B, 0, ...] where there
            is no global memory.
        past_mask: bool [B, n].
        key: of the reads.
        train: dropout on.
    """
    batch, count = past.shape[:2]
    size = 32 * features.top.shape[1], 32 * features.top.shape[2]
    memory = model.init_memory(batch, size, key, global_size=max(1, count))
    if count:
        stored = jax.tree.map(
            lambda x: x.reshape(batch, count, *x.shape[1:]),
            model.remember(_flat(past)),
        )
        memory = jax.vmap(lambda m, t, v, s: mem.prefill(m, t, v, stored=s))(
            memory, past, past_mask, stored
        )
    if window.shape[1]:
        memory = jax.vmap(mem.prefill_local)(memory, window, window_mask)
    return model.update(memory, features, train=train)[1]


def _flat(x: Array) -> Array:
    """[B, T, ...] -> [B*T, ...]."""
    return x.reshape(-1, *x.shape[2:])
