"""A ring buffer of fixed capacity, as an immutable pytree.

In the shape descriptions, `K` is the capacity and `...` the shape of one item's leaf.
Written for one video (one stream); batch with `jax.vmap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests; at run time JAX is enough.
    from jaxtyping import Bool, Int, Int32

Item = TypeVar("Item")

EMPTY: Final = -1

# Runtimes of exported steps may compute integers in float32, which is exact up to
# 2**24.
_MAX_COUNT = 2**23
_KINDS = {"bool": jnp.bool_, "int": jnp.integer, "float": jnp.floating}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RingBuffer(Generic[Item]):
    """The last `K` items pushed, each with a stamp. Items are pytrees of arrays.

    Only the counter is stored; head, size and validity are derived from it. Slots that
    were never written hold zeros. The properties use trailing axes, so they also work
    on a batched ring (leaves [B, K, ...]).

    The counter never overflows: before it reaches 2**23 (after three days at 30 frames
    per second), it is reduced by a multiple of `K` to `K`, which changes neither head
    nor size.

    Attributes:
        slots: the items, leaves [K, ...].
        stamp: the stamp passed to `push`, usually the index of the frame; `EMPTY` for
            slots that were never written.
        count: number of items pushed so far.
    """

    slots: Item
    stamp: Int32[Array, "*batch K"]
    count: Int32[Array, "*batch"]

    @property
    def capacity(self) -> int:
        """K, the number of slots."""
        return self.stamp.shape[-1]

    @property
    def head(self) -> Int32[Array, "*batch"]:
        """The slot that the next push writes to."""
        return self.count % self.capacity

    @property
    def size(self) -> Int32[Array, "*batch"]:
        """The number of slots that hold an item."""
        return jnp.minimum(self.count, self.capacity)

    @property
    def valid(self) -> Bool[Array, "*batch K"]:
        """Which slots hold an item: the first `size` of them."""
        slot = jax.lax.broadcasted_iota(
            jnp.int32, self.stamp.shape, self.stamp.ndim - 1
        )
        return slot < self.size[..., None]


def init(item: Item, *, capacity: int) -> RingBuffer[Item]:
    """Creates an empty ring for items like `item`.

    Args:
        item: one item: a pytree of arrays or `jax.ShapeDtypeStruct`s, leaves [...].
            Only shapes and dtypes are used. An empty pytree (`{}`) gives a ring with
            stamps only.
        capacity: K, from 1 to 2**22.

    Raises:
        ValueError: the capacity is out of range.
    """
    if not 1 <= capacity <= _MAX_COUNT // 2:
        raise ValueError(
            f"capacity is {capacity}; it must be from 1 to {_MAX_COUNT // 2}"
        )
    return RingBuffer(
        slots=jax.tree.map(
            lambda x: jnp.zeros((capacity, *jax.typeof(x).shape), jax.typeof(x).dtype),
            item,
        ),
        stamp=jnp.full((capacity,), EMPTY, jnp.int32),
        count=jnp.zeros((), jnp.int32),
    )


def push(
    ring: RingBuffer[Item],
    item: Item,
    *,
    stamp: Int[ArrayLike, ""],
    where: Bool[ArrayLike, ""] = True,
    slot: Int[ArrayLike, ""] | None = None,
) -> RingBuffer[Item]:
    """Overwrites the oldest slot with `item` if `where` is True.

    Only one slot is written: under `jax.lax.scan`, or under `jax.jit` with the ring
    donated, XLA updates the ring in place. (XLA's CPU backend widens bfloat16 scatters
    to float32 and therefore copies a bfloat16 ring. Other dtypes and backends are not
    affected.)

    Args:
        ring: the ring.
        item: leaves [...], with the structure, shapes and dtypes of the ring's items.
        stamp: stored with the item. Use non-negative stamps, which cannot be confused
            with `EMPTY`.
        where: whether to push.
        slot: the slot that a full ring overwrites instead of the oldest, such as
            `most_redundant(ring)`. Slots are then no longer in order of time, and
            functions that rely on the order (`latest`, `read_last`, `read_window`)
            return unspecified items. Stamps stay correct.

    Returns:
        The updated ring.

    Raises:
        ValueError: at trace time, naming the leaf that does not match.
    """
    check_item(ring, item, "item")
    check_scalar(stamp, "int", "stamp")
    check_scalar(where, "bool", "where")
    # Slot K is out of bounds, so a write to it is dropped.
    head = ring.head
    if slot is not None:
        check_scalar(slot, "int", "slot")
        head = jnp.where(ring.count >= ring.capacity, slot, head)
    index = jnp.where(where, head, ring.capacity)

    def write(slots: Array, x: ArrayLike) -> Array:
        # The hints hold for a single index. They avoid the general form of the
        # scatter's gradient, which passes over the whole buffer.
        return slots.at[index].set(
            x,
            mode="drop",
            unique_indices=True,
            indices_are_sorted=True,
            wrap_negative_indices=False,
        )

    # The largest multiple of K that the counter can hold is replaced by K.
    limit = _MAX_COUNT // ring.capacity * ring.capacity
    count = ring.count + jnp.asarray(where, jnp.int32)
    return RingBuffer(
        slots=jax.tree.map(write, ring.slots, item),
        stamp=write(ring.stamp, jnp.asarray(stamp, jnp.int32)),
        count=jnp.where(count >= limit, ring.capacity, count),
    )


def latest(ring: RingBuffer[Item]) -> Item:
    """Returns the item pushed last, leaves [...]; zeros while the ring is empty."""
    check_single(ring)
    index = latest_slot(ring)
    return jax.tree.map(
        lambda x: x.at[index].get(
            mode="promise_in_bounds", wrap_negative_indices=False
        ),
        ring.slots,
    )


def latest_slot(ring: RingBuffer) -> Int32[Array, ""]:
    """Returns the slot written last; K - 1 while the ring is empty."""
    return (ring.count - 1) % ring.capacity


def check_single(ring: RingBuffer) -> None:
    """Rejects a batched ring, on which indexing would select videos, not slots."""
    if ring.stamp.ndim != 1:
        raise ValueError(
            f"the ring's stamp has shape {list(ring.stamp.shape)}, not [K]: it is "
            "batched; call this under jax.vmap"
        )


def check_item(ring: RingBuffer, item: Any, name: str) -> None:
    """Rejects an item whose structure, shapes or dtypes are not the ring's."""
    check_single(ring)
    slot = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), ring.slots
    )
    check_same(slot, item, "the ring's items", name)


def check_same(expected: Any, got: Any, expected_name: str, name: str) -> None:
    """Rejects a pytree that differs from `expected`.

    Raises:
        ValueError: structure, shape or dtype differs; names the first such leaf.
    """
    required, types = _leaf_types(expected), _leaf_types(got)
    for path in [*required, *types]:
        if required.get(path) != types.get(path):
            raise ValueError(
                f"{name}{path} is {types.get(path, 'missing')}, but in "
                f"{expected_name} it is {required.get(path, 'missing')}; pass one item "
                "of the same type (use jax.vmap for a batch)"
            )
    if jax.tree.structure(expected) != jax.tree.structure(got):
        raise ValueError(
            f"{name} is {jax.tree.structure(got)}, but {expected_name} have "
            f"{jax.tree.structure(expected)}"
        )


def check_scalar(x: ArrayLike, kind: str, name: str) -> None:
    """Rejects anything but a scalar of `kind` "bool", "int" or "float"."""
    aval = jax.typeof(x)
    if aval.shape != () or not jnp.issubdtype(aval.dtype, _KINDS[kind]):
        raise ValueError(
            f"{name} is {aval.dtype}{list(aval.shape)}; it must be {kind} [] "
            "(use jax.vmap for a batch)"
        )


def _leaf_types(tree: Any) -> dict[str, str]:
    """Maps leaf paths to types, such as {"['key']": "float32[4,4,64]"}."""
    return {
        jax.tree_util.keystr(path): f"{aval.dtype}{list(aval.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for aval in [jax.typeof(leaf)]
    }
