"""Two memories of one video: the last few frames, and chosen ones from all of it.

In the shape descriptions `m` counts the frames of a prefill and `...` is the shape of
one item's leaf. Written for one video; batch with `jax.vmap`.
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
"""What `reset` forgets."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DualMemory(Generic[Recent, Item, Stored, State]):
    """A local and a global memory (section 2: L_t and G_t).

    What the memories keep of a frame (`recent` the local one, `stored` the global one)
    need not be what frames are compared by (the item): the latest admitted item has its
    own ring of one. That ring and the global one take the same frames, so their counts
    are equal (until one falls back after 2**23 admissions, see `RingBuffer`).

    `state` is whatever else goes from frame to frame, such as a `GatedState`.

    `frame` wraps to negative numbers after 2**31 frames (2.2 years at 30 a second);
    reads go on, and differences of stamps stay right modulo 2**32.

    Attributes:
        local: `recent` of the last `local_size` frames.
        reference: the latest admitted item, which the policy compares with.
        global_: `stored` of the admitted frames; a full one drops its oldest.
        frame: the index of the next frame, and stamp of what it brings.
        key: PRNG key of the reads; see `read_key`.
        state: of the frames before; zeros at the start, and after either reset.
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
    """Empty memories for a video of items like `item`.

    Args:
        item: one item: a pytree of arrays or `jax.ShapeDtypeStruct`s, leaves [...].
        local_size: capacity of the local memory, the paper's tau.
        global_size: capacity of the global memory.
        key: PRNG key, typed or raw; one folded from it is kept, never the same array.
        recent: like what the local memory keeps of a frame; the item if None, and
            nothing but stamps if `{}`.
        stored: the same of the global memory.
        state: what else is carried on, zeros; nothing if None.

    Raises:
        ValueError: for a size below 1.
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
    """The PRNG key for this frame's read: another for every frame, always the same."""
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
    """Remembers one frame, after it was read for: `judge`, then `remember`.

    Args:
        memory: of the frames before this one.
        item: leaves [...].
        confidence: see `confidence`.
        policy: of admission to the global memory.
        recent: what the local memory keeps of the frame; the item if None.
        stored: what the global memory keeps of the frame; the item if None.

    Returns:
        The memory of the next frame, and whether this one was admitted.

    Raises:
        ValueError: at trace time, if a frame's part is not what `init_dual` saw.
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
    """Whether a frame is wanted in the global memory, by the rules of `admit`.

    The policy sees the reference ring and the candidate (item, confidence, frame); the
    first finite frame is always wanted, and one that is not finite never is. On its own
    it tells whether `stored` is worth computing before `remember`.

    Args:
        memory: of the frames before this one.
        item: leaves [...].
        confidence: see `confidence`.
        policy: of admission.
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

    What is not finite is not written: the local memory then stays as it is, or the
    frame is not admitted. It is counted all the same.

    Args:
        memory: of the frames before this one.
        item: leaves [...].
        admitted: whether the global memory takes the frame, see `judge`.
        recent: what the local memory keeps of the frame; the item if None.
        stored: what the global memory keeps of the frame; the item if None.
        state: of the next frame, which the caller has blended; the old one if None.
        where: whether there is a frame at all. False leaves the memory as it is,
            without a copy of it.

    Returns:
        The memory of the next frame, and whether this one was admitted.

    Raises:
        ValueError: at trace time, if a frame's part is not what `init_dual` saw.
    """
    recent = item if recent is None else recent
    stored = item if stored is None else stored
    check_item(memory.local, recent, "recent")
    check_item(memory.global_, stored, "stored")
    where = jnp.asarray(where)
    taken = where & all_finite((item, recent))
    admitted = where & admitted & all_finite((item, stored))
    stamp = memory.frame
    return replace(
        memory,
        local=push(memory.local, recent, stamp=stamp, where=taken),
        reference=push(memory.reference, item, stamp=stamp, where=admitted),
        global_=push(memory.global_, stored, stamp=stamp, where=admitted),
        frame=memory.frame + where,
        state=memory.state if state is None else state,
    ), admitted


def prefill(
    memory: DualMemory, items: Any, valid: Bool[Array, "m"], *, stored: Any = None
) -> DualMemory:
    """Puts past frames into the global memory, in order, whatever a policy would say.

    For training clips that come with their past frames. Each valid row counts as one
    frame of the video, stamped with its index; `local` is left as it is. A row that
    is not finite is counted and refused, as in `advance`.

    Args:
        memory: to add to.
        items: leaves [m, ...].
        valid: which rows are frames at all.
        stored: leaves [m, ...], what the global memory keeps; the items if None.

    Raises:
        ValueError: at trace time, if rows differ in number or do not fit the memory.
    """
    stored = items if stored is None else stored
    _check_rows(items, valid, "items")
    _check_rows(stored, valid, "stored")

    def step(
        memory: DualMemory, row: tuple[Any, Any, Array]
    ) -> tuple[DualMemory, None]:
        item, kept, is_frame = row
        check_item(memory.global_, kept, "stored")
        taken = is_frame & all_finite((item, kept))
        stamp = memory.frame
        return replace(
            memory,
            reference=push(memory.reference, item, stamp=stamp, where=taken),
            global_=push(memory.global_, kept, stamp=stamp, where=taken),
            frame=memory.frame + is_frame,
        ), None

    return jax.lax.scan(step, memory, (items, stored, valid))[0]


def prefill_local(
    memory: DualMemory, recent: Any, valid: Bool[Array, "m"]
) -> DualMemory:
    """Puts frames into the local memory alone: what `advance` does if none is admitted.

    For training clips that come with the window before their last frame. Each valid
    row counts as one frame of the video; one that is not finite is counted and
    refused.

    Args:
        memory: to add to.
        recent: leaves [m, ...], what the local memory keeps of each frame.
        valid: which rows are frames at all.

    Raises:
        ValueError: at trace time, if rows differ in number or do not fit the memory.
    """
    _check_rows(recent, valid, "recent")

    def step(memory: DualMemory, row: tuple[Any, Array]) -> tuple[DualMemory, None]:
        item, is_frame = row
        taken = is_frame & all_finite(item)
        return replace(
            memory,
            local=push(memory.local, item, stamp=memory.frame, where=taken),
            frame=memory.frame + is_frame,
        ), None

    return jax.lax.scan(step, memory, (recent, valid))[0]


def reset(memory: DualMemory, what: Int[ArrayLike, ""]) -> DualMemory:
    """Forgets nothing (`KEEP`), the recent (`RESET_LOCAL`) or all (`RESET_ALL`).

    The recent is the local memory and the state. After `RESET_ALL` the memory is as at
    a video's first frame, but for its key. Slots are left as they are: what is not
    valid is never read.

    Args:
        memory: of one video.
        what: one of the three.
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
            f"valid is {valid.dtype}{list(valid.shape)}; it must be bool [m], one for "
            "each row (jax.vmap for a batch)"
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.shape[:1] != valid.shape:
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {list(leaf.shape)}; "
                f"its first axis must have the {len(valid)} rows of valid"
            )
