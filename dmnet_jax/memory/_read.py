"""Reads from a ring: a fixed number of rows and a mask of the valid ones.

In the shape descriptions, `K` is the ring's capacity and `n` the requested number of
rows. Written for one video; batch with `jax.vmap`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import jax
import jax.numpy as jnp
from jax import Array

from dmnet_jax.memory._ring import EMPTY, Item, RingBuffer, check_item, check_single

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests; at run time JAX is enough.
    from jaxtyping import Bool, Float, Float32, Int32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Readout(Generic[Item]):
    """Rows read from a ring.

    Attributes:
        items: leaves [n, ...]; zeros where the mask is False.
        mask: which rows hold an item.
        stamp: the items' stamps; `EMPTY` where the mask is False.
    """

    items: Item
    mask: Bool[Array, "*batch n"]
    stamp: Int32[Array, "*batch n"]


def read_all(ring: RingBuffer[Item]) -> Readout[Item]:
    """Reads all slots, n = K, in slot order (not in order of time once it is full).

    Outside `jax.jit`, the rows are the ring's own arrays. They become invalid when the
    ring is donated.
    """
    check_single(ring)
    return Readout(items=ring.slots, mask=ring.valid, stamp=ring.stamp)


def read_last(ring: RingBuffer[Item], n: int) -> Readout[Item]:
    """Reads the `n` items pushed last, oldest first.

    With fewer than `n` items in the ring, the first rows are masked: the newest item is
    always in the last row.

    Args:
        ring: the ring.
        n: number of rows, from 1 to K.

    Raises:
        ValueError: n is below 1 or above K.
    """
    _check_rows(ring, n)
    if n > ring.capacity:
        raise ValueError(
            f"n is {n}, but the ring keeps only the last {ring.capacity} items; read "
            "fewer, or create the ring with a larger capacity"
        )
    position = ring.count - n + jnp.arange(n, dtype=jnp.int32)
    return _take(ring, position % ring.capacity)


def read_window(ring: RingBuffer[Item], n: int, newest: Item) -> Item:
    """Reads the `n` items pushed last and appends `newest`, oldest first.

    With fewer than `n` items in the ring, missing rows repeat the oldest item, or
    `newest` if the ring is empty, as if the stream had been still before its start.

    Args:
        ring: the ring.
        n: number of items from the ring, from 1 to K.
        newest: an item that is not in the ring yet, leaves [...].

    Returns:
        Leaves [n + 1, ...].

    Raises:
        ValueError: at trace time, if n is out of range or the item does not match.
    """
    check_item(ring, newest, "newest")
    readout = read_last(ring, n)
    index = jnp.maximum(jnp.arange(n + 1), n - readout.mask.sum())

    def window(slots: Array, x: Array) -> Array:
        rows = jnp.concatenate([slots, jnp.asarray(x)[None]])
        return rows.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)

    return jax.tree.map(window, readout.items, newest)


def read_uniform(ring: RingBuffer[Item], n: int, key: Array) -> Readout[Item]:
    """Reads `n` distinct items, sampled uniformly, in random order.

    With fewer than `n` items in the ring, all of them come first and the other rows are
    masked. `n` may be above K.

    Args:
        ring: the ring.
        n: number of rows, at least 1.
        key: PRNG key; it is consumed.
    """
    _check_rows(ring, n)
    return _top_k(ring, n, draw_scores(key, ring.capacity))


@functools.partial(jax.jit, static_argnums=1)
def draw_scores(key: Array, n: int) -> Float32[Array, "{n}"]:
    """Draws the scores by which `read_uniform` selects among n slots.

    This is a separate jitted function so that an exported program can take the numbers
    as an input instead.

    Returns:
        float32 [n], uniform in [0, 1).
    """
    return jax.random.uniform(key, (n,))


def read_top_k(
    ring: RingBuffer[Item], n: int, score: Float[Array, "K"]
) -> Readout[Item]:
    """Reads the `n` items of highest score, best first; ties go to the lower slot.

    With fewer than `n` items in the ring, the last rows are masked. `n` may be above K.

    Args:
        ring: the ring.
        n: number of rows, at least 1.
        score: one per slot. Scores of empty slots are ignored, and NaN counts as -inf.
    """
    _check_rows(ring, n)
    if score.shape != (ring.capacity,) or not jnp.issubdtype(score.dtype, jnp.floating):
        raise ValueError(
            f"score is {score.dtype}{list(score.shape)}; it must be float "
            f"[{ring.capacity}], one number per slot"
        )
    return _top_k(ring, n, jnp.where(jnp.isnan(score), -jnp.inf, score))


def attend(
    query: Float[Array, "*places C"],
    key: Float[Array, "n *stored C"],
    value: Float[Array, "n *stored V"],
    mask: Bool[Array, "n"],
    null: Float[Array, "*places"] | None = None,
) -> Float[Array, "*places V"]:
    """Softmax attention of queries over rows that were read.

    Affinities are exp(q . k / sqrt(C)), normalized over all positions of all valid
    rows, in float32. The result is zero if no row is valid.

    With `null`, a query may also attend to nothing: exp(null) is added to the sum that
    affinities are divided by, so the result is smaller, or zero.

    Args:
        query: queries at any number of positions.
        key: keys at the positions of n rows, such as leaves of a `Readout`.
        value: values at the same positions.
        mask: which rows are valid.
        null: score of attending to nothing, per position. None: not possible.

    Returns:
        The attended values, in the dtype of `value`.

    Raises:
        ValueError: at trace time, if shapes do not match.
    """
    channels = query.shape[-1]
    fits = key.shape[:-1] == value.shape[:-1] and key.shape[:1] == mask.shape
    if not fits or key.shape[-1] != channels:
        raise ValueError(
            f"query {list(query.shape)}, key {list(key.shape)}, value "
            f"{list(value.shape)} and mask {list(mask.shape)} do not match: expected "
            "[..., C], [n, ..., C], [n, ..., V] and [n] (use jax.vmap for a batch)"
        )
    q = query.reshape(-1, channels)
    k = key.reshape(-1, channels)
    v = value.reshape(-1, value.shape[-1])
    logits = jnp.einsum("qc,mc->qm", q, k, preferred_element_type=jnp.float32)
    places = k.shape[0] // mask.shape[0]
    readable = jnp.repeat(mask, places, total_repeat_length=k.shape[0])
    logits = jnp.where(readable, logits / jnp.sqrt(jnp.float32(channels)), -jnp.inf)
    if null is not None:
        column = null.reshape(-1, 1).astype(jnp.float32)
        affinity = jax.nn.softmax(jnp.concatenate([logits, column], axis=1))[:, :-1]
    else:
        # If all logits were -inf, the softmax and its gradient would be NaN.
        logits = jnp.where(mask.any(), logits, 0.0)
        affinity = jnp.where(readable, jax.nn.softmax(logits), 0.0)
    return (affinity.astype(v.dtype) @ v).reshape(*query.shape[:-1], v.shape[-1])


def stand_in(readout: Readout[Item], item: Item) -> Readout[Item]:
    """Replaces all rows of an empty readout by `item`.

    The replaced rows are valid and keep the stamp `EMPTY`. A readout with at least one
    valid row does not change.

    Args:
        readout: the result of any read.
        item: leaves [...].
    """
    empty = ~readout.mask.any()
    return Readout(
        items=jax.tree.map(lambda x, y: jnp.where(empty, y, x), readout.items, item),
        mask=readout.mask | empty,
        stamp=readout.stamp,
    )


def _top_k(ring: RingBuffer[Item], n: int, score: Array) -> Readout[Item]:
    # Valid slots come before empty ones and top_k prefers the lower index among equal
    # scores, so a valid slot with score -inf is still chosen before an empty one.
    score = jnp.where(ring.valid, score, -jnp.inf)
    chosen = _take(ring, jax.lax.top_k(score, min(n, ring.capacity))[1])
    missing = max(0, n - ring.capacity)
    if missing == 0:
        return chosen

    def pad(x: Array, fill: int | bool = 0) -> Array:
        widths = [(0, missing)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths, constant_values=fill)

    return Readout(
        items=jax.tree.map(pad, chosen.items),
        mask=pad(chosen.mask, False),
        stamp=pad(chosen.stamp, EMPTY),
    )


def _take(ring: RingBuffer[Item], index: Array) -> Readout[Item]:
    """Reads the slots at `index`, int32 [n], which must be in bounds."""

    def take(x: Array) -> Array:
        return x.at[index].get(
            mode="promise_in_bounds", unique_indices=True, wrap_negative_indices=False
        )

    return Readout(
        items=jax.tree.map(take, ring.slots),
        mask=take(ring.valid),
        stamp=take(ring.stamp),
    )


def _check_rows(ring: RingBuffer, n: int) -> None:
    check_single(ring)
    if n < 1:
        raise ValueError(f"n is {n}; a read returns at least 1 row")
