"""A ring buffer of fixed capacity, as an immutable pytree.

In the shape descriptions `K` is the capacity and `...` the shape of one item's leaf.
Everything is written for one video (one stream); batch with `jax.vmap`.
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

# Runtimes that read an exported step may compute integers in float32, which is exact to
# 2**24.
_MAX_COUNT = 2**23
_KINDS = {"bool": jnp.bool_, "int": jnp.integer, "float": jnp.floating}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RingBuffer(Generic[Item]):
    """The last `K` items pushed, any pytree of arrays, each with a stamp.

    Only the counter is stored; head, size and validity follow from it. A slot that was
    never written holds zeros. The properties look at trailing axes, so they are right
    on a batched ring as well (leaves [B, K, ...]).

    The counter never overflows: before it passes 2**23 (after three days of pushing at
    30 frames a second) it falls back by a multiple of `K` to `K`, which changes neither
    head nor size.

    Attributes:
        slots: the items, leaves [K, ...].
        stamp: what the caller stamped each item with, usually the frame's index;
            `EMPTY` where nothing was pushed.
        count: items ever pushed.
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
        """The slot that the next push writes."""
        return self.count % self.capacity

    @property
    def size(self) -> Int32[Array, "*batch"]:
        """How many slots hold an item."""
        return jnp.minimum(self.count, self.capacity)

    @property
    def valid(self) -> Bool[Array, "*batch K"]:
        """Which slots hold an item: the first `size` of them."""
        slot = jax.lax.broadcasted_iota(
            jnp.int32, self.stamp.shape, self.stamp.ndim - 1
        )
        return slot < self.size[..., None]


def init(item: Item, *, capacity: int) -> RingBuffer[Item]:
    """An empty ring for items like `item`.

    Args:
        item: one item: a pytree of arrays or `jax.ShapeDtypeStruct`s, leaves [...].
            Only shapes and dtypes are used. An empty pytree (`{}`) gives a ring of
            stamps alone.
        capacity: K, from 1 to 2**22.

    Raises:
        ValueError: for a capacity out of range.
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
    """Writes `item` over the oldest slot, or nothing where `where` is False.

    One slot is touched: under `jax.lax.scan`, or `jax.jit` with the ring donated, XLA
    updates it in place. (Its CPU backend widens bfloat16 scatters to float32 and so
    copies a bfloat16 ring; every other dtype, and other backends, are spared that.)

    Args:
        ring: of any fill.
        item: leaves [...], with the structure, shapes and dtypes of the ring's items.
        stamp: kept beside the item; non-negative stamps are never mistaken for `EMPTY`.
        where: whether to push at all.
        slot: what a full ring gives up instead of the oldest, such as `most_redundant`.
            Slots are then no longer in order of time, and what goes by order (`latest`,
            `read_last`, `read_window`) means nothing; stamps do.

    Raises:
        ValueError: at trace time, naming the leaf that does not fit.
    """
    check_item(ring, item, "item")
    check_scalar(stamp, "int", "stamp")
    check_scalar(where, "bool", "where")
    # Slot K does not exist, and a write that is out of bounds is dropped.
    head = ring.head
    if slot is not None:
        check_scalar(slot, "int", "slot")
        head = jnp.where(ring.count >= ring.capacity, slot, head)
    index = jnp.where(where, head, ring.capacity)

    def write(slots: Array, x: ArrayLike) -> Array:
        # The hints are true of one index, and spare the gradient of a scatter its
        # general form, which goes over the whole buffer.
        return slots.at[index].set(
            x,
            mode="drop",
            unique_indices=True,
            indices_are_sorted=True,
            wrap_negative_indices=False,
        )

    # The largest multiple of K that the counter could hold stands for K.
    limit = _MAX_COUNT // ring.capacity * ring.capacity
    count = ring.count + jnp.asarray(where, jnp.int32)
    return RingBuffer(
        slots=jax.tree.map(write, ring.slots, item),
        stamp=write(ring.stamp, jnp.asarray(stamp, jnp.int32)),
        count=jnp.where(count >= limit, ring.capacity, count),
    )


def latest(ring: RingBuffer[Item]) -> Item:
    """The item pushed last, leaves [...]; zeros while the ring is empty."""
    check_single(ring)
    index = latest_slot(ring)
    return jax.tree.map(
        lambda x: x.at[index].get(
            mode="promise_in_bounds", wrap_negative_indices=False
        ),
        ring.slots,
    )


def latest_slot(ring: RingBuffer) -> Int32[Array, ""]:
    """The slot written last; K - 1 while the ring is empty."""
    return (ring.count - 1) % ring.capacity


def check_single(ring: RingBuffer) -> None:
    """Refuses a batched ring, on which indexing would pick videos, not slots."""
    if ring.stamp.ndim != 1:
        raise ValueError(
            f"the ring's stamp has shape {list(ring.stamp.shape)}, not [K]: it is "
            "batched; call this under jax.vmap"
        )


def check_item(ring: RingBuffer, item: Any, name: str) -> None:
    """Refuses an item whose structure, shapes or dtypes are not the ring's."""
    check_single(ring)
    slot = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), ring.slots
    )
    check_same(slot, item, "the ring's items", name)


def check_same(expected: Any, got: Any, expected_name: str, name: str) -> None:
    """Refuses a pytree that differs from `expected`, naming the first leaf that does.

    Raises:
        ValueError: on another structure, shape or dtype.
    """
    wanted, given = _leaf_types(expected), _leaf_types(got)
    for path in [*wanted, *given]:
        if wanted.get(path) != given.get(path):
            raise ValueError(
                f"{name}{path} is {given.get(path, 'missing')}, but in "
                f"{expected_name} it is {wanted.get(path, 'missing')}; pass one item "
                "of the same kind (jax.vmap for a batch)"
            )
    if jax.tree.structure(expected) != jax.tree.structure(got):
        raise ValueError(
            f"{name} is {jax.tree.structure(got)}, but {expected_name} have "
            f"{jax.tree.structure(expected)}"
        )


def check_scalar(x: ArrayLike, kind: str, name: str) -> None:
    """Refuses anything but [] of the `kind` "bool", "int" or "float"."""
    aval = jax.typeof(x)
    if aval.shape != () or not jnp.issubdtype(aval.dtype, _KINDS[kind]):
        raise ValueError(
            f"{name} is {aval.dtype}{list(aval.shape)}; it must be {kind} [] "
            "(jax.vmap for a batch)"
        )


def _leaf_types(tree: Any) -> dict[str, str]:
    """Each leaf's path and what it is, such as {"['key']": "float32[4,4,64]"}."""
    return {
        jax.tree_util.keystr(path): f"{aval.dtype}{list(aval.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for aval in [jax.typeof(leaf)]
    }
