"""Reading a ring: a fixed number of rows, and a mask that says which are real.

In the shape descriptions `K` is the ring's capacity and `n` the number of rows asked
for. Written for one video; batch with `jax.vmap`.
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
    """Every slot, n = K, in the order of the slots (not of time, once it is full).

    Outside `jax.jit` the rows are the ring's own arrays, and a push that the ring is
    donated to takes them with it.
    """
    check_single(ring)
    return Readout(items=ring.slots, mask=ring.valid, stamp=ring.stamp)


def read_last(ring: RingBuffer[Item], n: int) -> Readout[Item]:
    """The `n` items pushed last, oldest first.

    With fewer than `n` in the ring, the first rows are masked: the newest item is
    always in the last row.

    Raises:
        ValueError: if n is below 1 or above K, the longest history that is ever there.
    """
    _check_rows(ring, n)
    if n > ring.capacity:
        raise ValueError(
            f"n is {n}, but the ring keeps the last {ring.capacity} items only; "
            "read fewer, or give the ring a larger capacity"
        )
    position = ring.count - n + jnp.arange(n, dtype=jnp.int32)
    return _take(ring, position % ring.capacity)


def read_window(ring: RingBuffer[Item], n: int, newest: Item) -> Item:
    """The `n` items pushed last and one that is not in the ring yet, oldest first.

    With fewer than `n` in the ring the oldest stands in for those before it, and the
    newest if there is none: as if the stream had stood still before its start.

    Args:
        ring: of any fill.
        n: from 1 to K.
        newest: leaves [...].

    Returns:
        Leaves [n + 1, ...].

    Raises:
        ValueError: at trace time, for n out of range or an item that does not fit.
    """
    check_item(ring, newest, "newest")
    readout = read_last(ring, n)
    index = jnp.maximum(jnp.arange(n + 1), n - readout.mask.sum())

    def window(slots: Array, x: Array) -> Array:
        rows = jnp.concatenate([slots, jnp.asarray(x)[None]])
        return rows.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)

    return jax.tree.map(window, readout.items, newest)


def read_uniform(ring: RingBuffer[Item], n: int, key: Array) -> Readout[Item]:
    """`n` distinct items in random order, every choice equally likely.

    With fewer than `n` in the ring, all of them come first and the other rows are
    masked; so `n` may be above K.

    Args:
        ring: of any fill.
        n: rows, at least 1.
        key: PRNG key; it is consumed.
    """
    _check_rows(ring, n)
    return _top_k(ring, n, draw_scores(key, ring.capacity))


@functools.partial(jax.jit, static_argnums=1)
def draw_scores(key: Array, n: int) -> Float32[Array, "{n}"]:
    """Numbers uniform in [0, 1): by which `read_uniform` chooses among n slots.

    A function of its own so that a program can be given the numbers instead.
    """
    return jax.random.uniform(key, (n,))


def read_top_k(
    ring: RingBuffer[Item], n: int, score: Float[Array, "K"]
) -> Readout[Item]:
    """The `n` items of the highest score, best first; of equal ones the lower slot.

    With fewer than `n` in the ring, the last rows are masked; so `n` may be above K.

    Args:
        ring: of any fill.
        n: rows, at least 1.
        score: one a slot; those of empty slots are ignored, and a NaN counts as -inf.
    """
    _check_rows(ring, n)
    if score.shape != (ring.capacity,) or not jnp.issubdtype(score.dtype, jnp.floating):
        raise ValueError(
            f"score is {score.dtype}{list(score.shape)}; it must be float "
            f"[{ring.capacity}], one number for each slot"
        )
    return _top_k(ring, n, jnp.where(jnp.isnan(score), -jnp.inf, score))


def attend(
    query: Float[Array, "*places C"],
    key: Float[Array, "n *stored C"],
    value: Float[Array, "n *stored V"],
    mask: Bool[Array, "n"],
) -> Float[Array, "*places V"]:
    """What each query finds in rows that were read: softmax attention.

    Affinities are exp(q . k / sqrt(C)), normalized over all places of all readable
    rows, in float32. Where no row is readable the answer is zeros.

    Args:
        query: of any number of places.
        key: of the places of n rows, such as leaves of a `Readout`.
        value: of the same places.
        mask: which rows can be read.

    Returns:
        Of the value's dtype.

    Raises:
        ValueError: at trace time, if shapes do not fit.
    """
    channels = query.shape[-1]
    fits = key.shape[:-1] == value.shape[:-1] and key.shape[:1] == mask.shape
    if not fits or key.shape[-1] != channels:
        raise ValueError(
            f"query {list(query.shape)}, key {list(key.shape)}, value "
            f"{list(value.shape)} and mask {list(mask.shape)} do not fit: want "
            "[..., C], [n, ..., C], [n, ..., V] and [n] (jax.vmap for a batch)"
        )
    q = query.reshape(-1, channels)
    k = key.reshape(-1, channels)
    v = value.reshape(-1, value.shape[-1])
    logits = jnp.einsum("qc,mc->qm", q, k, preferred_element_type=jnp.float32)
    places = k.shape[0] // mask.shape[0]
    readable = jnp.repeat(mask, places, total_repeat_length=k.shape[0])
    logits = jnp.where(readable, logits / jnp.sqrt(jnp.float32(channels)), -jnp.inf)
    # With all at -inf the softmax would be NaN, and its gradient too.
    logits = jnp.where(mask.any(), logits, 0.0)
    affinity = jnp.where(readable, jax.nn.softmax(logits), 0.0)
    return (affinity.astype(v.dtype) @ v).reshape(*query.shape[:-1], v.shape[-1])


def stand_in(readout: Readout[Item], item: Item) -> Readout[Item]:
    """The readout, or `item` in all of its rows where it holds nothing.

    A row that stands in is readable and keeps the stamp `EMPTY`.

    Args:
        readout: of any read.
        item: leaves [...].
    """
    empty = ~readout.mask.any()
    return Readout(
        items=jax.tree.map(lambda x, y: jnp.where(empty, y, x), readout.items, item),
        mask=readout.mask | empty,
        stamp=readout.stamp,
    )


def _top_k(ring: RingBuffer[Item], n: int, score: Array) -> Readout[Item]:
    # Valid slots come before empty ones and top_k prefers the lower of equal scores,
    # so a valid slot at -inf still wins over an empty one.
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
    """The slots at int32 [n], all of them in bounds."""

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
