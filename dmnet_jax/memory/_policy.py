"""Which frames a memory keeps: scores, and policies made of them.

A policy is a function of the ring and a candidate; `admit` asks it, after rules that
hold whatever it says. The scores decide and are not trained through: their gradient
is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from dmnet_jax.memory._ring import (
    Item,
    RingBuffer,
    check_item,
    check_same,
    check_scalar,
    check_single,
    latest,
    latest_slot,
    push,
)

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests; at run time JAX is enough.
    from jaxtyping import Bool, Float, Float32, Int, Int32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Candidate(Generic[Item]):
    """A frame that asks to be remembered.

    Attributes:
        item: what would be pushed, leaves [...].
        confidence: how much to trust it; see `confidence`.
        frame: its index, which becomes the stamp.
    """

    item: Item
    confidence: Float[ArrayLike, ""]
    frame: Int[ArrayLike, ""]


AdmissionPolicy: TypeAlias = Callable[[RingBuffer, Candidate], Array]
"""(ring, candidate) -> bool []. Called under `jax.jit`: no `if` on values."""


def admit(
    ring: RingBuffer[Item], candidate: Candidate[Item], *, policy: AdmissionPolicy
) -> tuple[RingBuffer[Item], Bool[Array, ""]]:
    """Pushes the candidate, stamped with its frame, where the policy says so.

    Two rules come before the policy. A candidate with a NaN or infinity in its
    confidence or in any float leaf is never admitted: one would poison every later
    read. And the first one that is finite is always admitted, so that a policy that
    compares has something to compare with.

    Returns:
        The ring, and whether the candidate is in it.

    Raises:
        ValueError: at trace time, if the candidate does not fit the ring.
    """
    admitted = admissible(ring, candidate, policy)
    ring = push(ring, candidate.item, stamp=candidate.frame, where=admitted)
    return ring, admitted


def admissible(
    ring: RingBuffer, candidate: Candidate, policy: AdmissionPolicy
) -> Bool[Array, ""]:
    """What `admit` decides."""
    check_item(ring, candidate.item, "item")
    check_scalar(candidate.confidence, "float", "confidence")
    check_scalar(candidate.frame, "int", "frame")
    wanted = policy(ring, candidate)
    check_scalar(wanted, "bool", "the policy's answer")
    finite = all_finite((candidate.item, candidate.confidence))
    return finite & (wanted | (ring.count == 0))


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no float leaf holds a NaN or an infinity."""
    return reduce(
        jnp.logical_and,
        [
            is_finite(x)
            for x in jax.tree.leaves(tree)
            if jnp.issubdtype(jax.typeof(x).dtype, jnp.inexact)
        ],
        jnp.bool_(True),
    )


@jax.jit
def is_finite(x: ArrayLike) -> Bool[Array, ""]:
    """Whether an array holds no NaN and no infinity."""
    return jnp.isfinite(x).all()


def confident(min_confidence: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits at r > alpha (section 2.3): confidence strictly above alpha."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        return jnp.asarray(candidate.confidence, jnp.float32) > min_confidence

    return policy


def dissimilar(max_similarity: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits at s < beta (section 2.3): `similarity` strictly below beta.

    Compared with the item pushed last; True while there is none.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        close = similarity(latest(ring), candidate.item)
        return (ring.count == 0) | (close < max_similarity)

    return policy


def novel(max_similarity: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits what is unlike all that is remembered: `similarity` below the maximum.

    `dissimilar` compares with the latest item alone, so a view that comes back is
    remembered again. True while the ring is empty. Costs a comparison a slot.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        close = jax.vmap(lambda item: similarity(item, candidate.item))(ring.slots)
        return jnp.max(close, where=ring.valid, initial=-jnp.inf) < max_similarity

    return policy


def most_redundant(ring: RingBuffer) -> Int32[Array, ""]:
    """The slot whose loss is the smallest: the older of the closest two.

    For `push(..., slot=most_redundant(ring))`, where a full ring is to keep what is
    unlike rather than what is recent. The oldest slot if fewer than two hold an item.
    Costs a comparison for each pair of slots.
    """
    check_single(ring)
    pair = jax.vmap(lambda a: jax.vmap(lambda b: similarity(a, b))(ring.slots))(
        ring.slots
    )
    slots = jnp.arange(ring.capacity)
    known = ring.valid[:, None] & ring.valid & (slots[:, None] != slots)
    first, second = jnp.divmod(
        jnp.argmax(jnp.where(known, pair, -jnp.inf)), ring.capacity
    )
    older = jnp.where(ring.stamp[first] <= ring.stamp[second], first, second)
    return jnp.where(known.any(), older, ring.head).astype(jnp.int32)


def every(k: Int[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits a frame at least `k` after the one pushed last; True on empty.

    The difference is taken modulo 2**32, so it outlives an overflow of the index.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        age = jnp.asarray(candidate.frame, jnp.int32) - ring.stamp[latest_slot(ring)]
        return (ring.count == 0) | (age >= k)

    return policy


def always() -> AdmissionPolicy:
    """Admits every frame."""
    return lambda ring, candidate: jnp.bool_(True)


def all_of(*policies: AdmissionPolicy) -> AdmissionPolicy:
    """Admits what every policy admits; everything if there is none."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        answers = [p(ring, candidate) for p in policies]
        return reduce(jnp.logical_and, answers, jnp.bool_(True))

    return policy


def any_of(*policies: AdmissionPolicy) -> AdmissionPolicy:
    """Admits what at least one policy admits; nothing if there is none."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        answers = [p(ring, candidate) for p in policies]
        return reduce(jnp.logical_or, answers, jnp.bool_(False))

    return policy


def confidence(probs: Float[Array, "H W C"]) -> Float32[Array, ""]:
    """The paper's r (section 2.3): the mean over pixels of sum_c p log p.

    The negative entropy in nats: 0 where every pixel is certain, -log C where every
    one is undecided. 0 log 0 is 0. Its gradient is zero.

    Args:
        probs: summing to 1 over C.

    Returns:
        Computed in float32 whatever the dtype of `probs`.
    """
    if probs.ndim != 3 or not jnp.issubdtype(probs.dtype, jnp.floating):
        raise ValueError(
            f"probs is {probs.dtype}{list(probs.shape)}; it must be float [H, W, C] "
            "(jax.vmap for a batch)"
        )
    p = jax.lax.stop_gradient(probs).astype(jnp.float32)
    return jax.scipy.special.xlogy(p, p).sum(axis=-1).mean()


def similarity(a: Item, b: Item) -> Float32[Array, ""]:
    """The paper's s (section 2.3): -sqrt(sum (a - b)^2), summed over all leaves.

    0 for equal items, lower for others. The gradient is zero: the root has none where
    a equals b, which is where a still camera puts it.

    Args:
        a: one item, leaves [...].
        b: another with the same structure, shapes and dtypes.

    Returns:
        Computed in float32 whatever the dtype of the leaves.

    Raises:
        ValueError: at trace time, naming the leaf that differs.
    """
    check_same(a, b, "the first item", "the second item")

    def squared_distance(x: ArrayLike, y: ArrayLike) -> Array:
        return jnp.square(_score_input(x) - _score_input(y)).sum()

    squares = jax.tree.leaves(jax.tree.map(squared_distance, a, b))
    return -jnp.sqrt(sum(squares, start=jnp.float32(0)))


def _score_input(x: ArrayLike) -> Array:
    return jax.lax.stop_gradient(jnp.asarray(x)).astype(jnp.float32)
