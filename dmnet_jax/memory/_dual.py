"""A local memory of the last frames and a global memory of selected frames.

In the shape descriptions, `m` is the number of frames of a prefill and `...` is the
shape of one item's leaf. Written for one video; batch with `jax.vmap`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from dmnet_jax.memory._policy import (
    AdmissionPolicy,
    Candidate,
    admissible,
    all_finite,
)
from dmnet_jax.memory._ring import (
    EMPTY,
    Item,
    RingBuffer,
    check_item,
    check_scalar,
    init,
    push,
)

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests; at run time JAX is enough.
    from jaxtyping import Bool, Float, Int, Int32

Recent = TypeVar("Recent")
Stored = TypeVar("Stored")
State = TypeVar("State")

KEEP, RESET_LOCAL, RESET_ALL = 0, 1, 2
"""Values of `what` in `reset`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DualMemory(Generic[Recent, Item, Stored, State]):
    """A local and a global memory (section 2: L_t and G_t).

    The memories may store something other than the item that frames are compared by:
    `recent` in the local memory and `stored` in the global one. The latest admitted
    item therefore has a separate ring with capacity 1. It and the global ring receive
    the same frames, so their counts are equal (until one of them falls back after
    2**23 admissions, see `RingBuffer`).

    `state` holds anything else that is carried from frame to frame, such as a
    `GatedState`.

    `frame` wraps to negative numbers after 2**31 frames (2.2 years at 30 frames per
    second). Reads keep working, and differences of stamps stay correct modulo 2**32.

    Attributes:
        local: `recent` of the last `local_size` frames.
        reference: the latest admitted item, which the policy compares with.
        global_: `stored` of the admitted frames; when full, the oldest is replaced.
        frame: the index of the next frame, used as its stamp.
        key: PRNG key of the reads; see `read_key`.
        state: state carried from the frames before; zeros at the start and after
            `RESET_LOCAL` and `RESET_ALL`.
    """

    local: RingBuffer[Recent]
    reference: RingBuffer[Item]
    global_: RingBuffer[Stored]
    frame: Int32[Array, "*batch"]
    key: Array
    state: State


def init_dual(
    item: Any,
    *,
    local_size: int,
    global_size: int,
    key: Array,
    recent: Any = None,
    stored: Any = None,
    state: Any = None,
) -> DualMemory:
    """Creates empty memories for a video of items like `item`.

    Args:
        item: one item: a pytree of arrays or `jax.ShapeDtypeStruct`s, leaves [...].
        local_size: capacity of the local memory, the paper's tau.
        global_size: capacity of the global memory.
        key: PRNG key, typed or raw. A key folded from it is stored, never the same
            array.
        recent: example of what the local memory stores per frame. None: the item.
            `{}`: only stamps.
        stored: the same for the global memory.
        state: initial state, zeros. None: no state.

    Raises:
        ValueError: a size is below 1.
    """
    return DualMemory(
        local=init(item if recent is None else recent, capacity=local_size),
        reference=init(item, capacity=1),
        global_=init(item if stored is None else stored, capacity=global_size),
        frame=jnp.zeros((), jnp.int32),
        key=jax.random.fold_in(key, 0),
        state={} if state is None else state,
    )


def read_key(memory: DualMemory) -> Array:
    """Returns the PRNG key for this frame's read; it depends only on key and frame."""
    return jax.random.fold_in(memory.key, memory.frame)


def advance(
    memory: DualMemory,
    item: Any,
    confidence: Float[ArrayLike, ""],
    *,
    policy: AdmissionPolicy,
    recent: Any = None,
    stored: Any = None,
) -> tuple[DualMemory, Bool[Array, ""]]:
    """Adds one frame to the memory: `judge`, then `remember`. Call it after reading.

    Args:
        memory: memory of the frames before.
        item: leaves [...].
        confidence: see `confidence`.
        policy: admission policy of the global memory.
        recent: what the local memory stores for the frame. None: the item.
        stored: what the global memory stores for the frame. None: the item.

    Returns:
        The updated memory, and whether the frame was admitted.

    Raises:
        ValueError: at trace time, if an argument does not match `init_dual`.
    """
    admitted = judge(memory, item, confidence, policy=policy)
    return remember(memory, item, admitted, recent=recent, stored=stored)


def judge(
    memory: DualMemory,
    item: Any,
    confidence: Float[ArrayLike, ""],
    *,
    policy: AdmissionPolicy,
) -> Bool[Array, ""]:
    """Decides whether to admit a frame to the global memory, by the rules of `admit`.

    The policy gets the reference ring and the candidate (item, confidence, frame). The
    first finite frame is always admitted, and a frame that is not finite never is. Call
    this before `remember` to compute `stored` only for frames that need it.

    Args:
        memory: memory of the frames before.
        item: leaves [...].
        confidence: see `confidence`.
        policy: admission policy.
    """
    candidate = Candidate(item, confidence, memory.frame)
    return admissible(memory.reference, candidate, policy)


def remember(
    memory: DualMemory,
    item: Any,
    admitted: Bool[Array, ""],
    *,
    recent: Any = None,
    stored: Any = None,
    state: Any = None,
    where: Bool[ArrayLike, ""] = True,
) -> tuple[DualMemory, Bool[Array, ""]]:
    """Writes one frame into both memories and counts it.

    Values that are not finite are not written: the local memory skips the frame, or the
    frame is not admitted. The frame is counted in any case.

    Args:
        memory: memory of the frames before.
        item: leaves [...].
        admitted: whether to admit the frame to the global memory, see `judge`.
        recent: what the local memory stores for the frame. None: the item.
        stored: what the global memory stores for the frame. None: the item.
        state: state for the next frame, already blended by the caller. None: the old
            state.
        where: whether there is a frame. If False, the memory does not change, except
            for a `state` that is given; no copy is made.

    Returns:
        The updated memory, and whether the frame was admitted.

    Raises:
        ValueError: at trace time, if an argument does not match `init_dual`.
    """
    recent = item if recent is None else recent
    stored = item if stored is None else stored
    check_item(memory.local, recent, "recent")
    check_item(memory.global_, stored, "stored")
    where = jnp.asarray(where)
    write = where & all_finite((item, recent))
    admitted = where & admitted & all_finite((item, stored))
    stamp = memory.frame
    return replace(
        memory,
        local=push(memory.local, recent, stamp=stamp, where=write),
        reference=push(memory.reference, item, stamp=stamp, where=admitted),
        global_=push(memory.global_, stored, stamp=stamp, where=admitted),
        frame=memory.frame + where,
        state=memory.state if state is None else state,
    ), admitted


def prefill(
    memory: DualMemory, items: Any, valid: Bool[Array, "m"], *, stored: Any = None
) -> DualMemory:
    """Adds past frames to the global memory, in order, without asking a policy.

    For training clips that come with past frames. Each valid row counts as one frame of
    the video and is stamped with its index. `local` does not change. A row that is not
    finite is counted but not written, as in `advance`.

    Args:
        memory: the memory to add to.
        items: leaves [m, ...].
        valid: which rows are frames.
        stored: leaves [m, ...], what the global memory stores. None: the items.

    Raises:
        ValueError: at trace time, if the numbers of rows differ or rows do not match
            the memory.
    """
    stored = items if stored is None else stored
    _check_rows(items, valid, "items")
    _check_rows(stored, valid, "stored")

    def step(
        memory: DualMemory, row: tuple[Any, Any, Array]
    ) -> tuple[DualMemory, None]:
        item, stored_item, is_frame = row
        check_item(memory.global_, stored_item, "stored")
        write = is_frame & all_finite((item, stored_item))
        stamp = memory.frame
        return replace(
            memory,
            reference=push(memory.reference, item, stamp=stamp, where=write),
            global_=push(memory.global_, stored_item, stamp=stamp, where=write),
            frame=memory.frame + is_frame,
        ), None

    return jax.lax.scan(step, memory, (items, stored, valid))[0]


def prefill_local(
    memory: DualMemory, recent: Any, valid: Bool[Array, "m"]
) -> DualMemory:
    """Adds frames to the local memory only, like `advance` with no frame admitted.

    For training clips that come with the window before their last frame. Each valid row
    counts as one frame of the video. A row that is not finite is counted but not
    written.

    Args:
        memory: the memory to add to.
        recent: leaves [m, ...], what the local memory stores for each frame.
        valid: which rows are frames.

    Raises:
        ValueError: at trace time, if the numbers of rows differ or rows do not match
            the memory.
    """
    _check_rows(recent, valid, "recent")

    def step(memory: DualMemory, row: tuple[Any, Array]) -> tuple[DualMemory, None]:
        item, is_frame = row
        write = is_frame & all_finite(item)
        return replace(
            memory,
            local=push(memory.local, item, stamp=memory.frame, where=write),
            frame=memory.frame + is_frame,
        ), None

    return jax.lax.scan(step, memory, (recent, valid))[0]


def reset(memory: DualMemory, what: Int[ArrayLike, ""]) -> DualMemory:
    """Resets nothing (`KEEP`), local memory and state (`RESET_LOCAL`), or everything.

    After `RESET_ALL`, the memory behaves as before a video's first frame, with the same
    key. Slots are not cleared, because invalid slots are never read.

    Args:
        memory: memory of one video.
        what: `KEEP`, `RESET_LOCAL` or `RESET_ALL`.
    """
    check_scalar(what, "int", "what")
    what = jnp.asarray(what)

    def emptied(ring: RingBuffer, where: Array) -> RingBuffer:
        return replace(
            ring,
            stamp=jnp.where(where, EMPTY, ring.stamp),
            count=jnp.where(where, 0, ring.count),
        )

    everything = what >= RESET_ALL
    return DualMemory(
        local=emptied(memory.local, what >= RESET_LOCAL),
        reference=emptied(memory.reference, everything),
        global_=emptied(memory.global_, everything),
        frame=jnp.where(everything, 0, memory.frame),
        key=memory.key,
        state=jax.tree.map(
            lambda x: jnp.where(what >= RESET_LOCAL, jnp.zeros_like(x), x), memory.state
        ),
    )


def _check_rows(tree: Any, valid: Array, name: str) -> None:
    if valid.ndim != 1 or valid.dtype != jnp.bool_:
        raise ValueError(
            f"valid is {valid.dtype}{list(valid.shape)}; it must be bool [m], one per "
            "row (use jax.vmap for a batch)"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.shape[:1] != valid.shape:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {list(leaf.shape)}; "
                f"its first axis must have {len(valid)} rows, as valid has"
            )
