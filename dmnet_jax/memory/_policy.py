"""Admission policies, and the scores that they use.

A policy is a function of the ring and a candidate. `admit` applies it after two fixed
rules. The gradient of all scores is zero.
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
    """A frame that may be admitted.

    Attributes:
        item: the item to push, leaves [...].
        confidence: see `confidence`.
        frame: the index of the frame, which becomes the stamp.
    """

    item: Item
    confidence: Float[ArrayLike, ""]
    frame: Int[ArrayLike, ""]


AdmissionPolicy: TypeAlias = Callable[[RingBuffer, Candidate], Array]
"""(ring, candidate) -> bool []. Runs under `jax.jit`: no Python `if` on values."""


def admit(
    ring: RingBuffer[Item], candidate: Candidate[Item], *, policy: AdmissionPolicy
) -> tuple[RingBuffer[Item], Bool[Array, ""]]:
    """Pushes the candidate, stamped with its frame, if the policy admits it.

    Two rules precede the policy. A candidate with a NaN or infinity in its confidence
    or in any float leaf is never admitted, because it would corrupt all later reads.
    The first finite candidate is always admitted, so that comparing policies have
    something to compare with.

    Args:
        ring: the ring to push to.
        candidate: the frame to admit.
        policy: admission policy.

    Returns:
        The updated ring, and whether the candidate was admitted.

    Raises:
        ValueError: at trace time, if the candidate does not match the ring.
    """
    admitted = admissible(ring, candidate, policy)
    ring = push(ring, candidate.item, stamp=candidate.frame, where=admitted)
    return ring, admitted


def admissible(
    ring: RingBuffer, candidate: Candidate, policy: AdmissionPolicy
) -> Bool[Array, ""]:
    """Returns the decision of `admit`."""
    check_item(ring, candidate.item, "item")
    check_scalar(candidate.confidence, "float", "confidence")
    check_scalar(candidate.frame, "int", "frame")
    decision = policy(ring, candidate)
    check_scalar(decision, "bool", "the policy's answer")
    finite = all_finite((candidate.item, candidate.confidence))
    return finite & (decision | (ring.count == 0))


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Returns whether all float leaves are finite."""
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
    """Returns whether all elements of an array are finite."""
    return jnp.isfinite(x).all()


def confident(min_confidence: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits at r > alpha (section 2.3): confidence strictly above `min_confidence`."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        return jnp.asarray(candidate.confidence, jnp.float32) > min_confidence

    return policy


def dissimilar(max_similarity: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits at s < beta (section 2.3): `similarity` strictly below `max_similarity`.

    Compares with the item pushed last. True while the ring is empty.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        close = similarity(latest(ring), candidate.item)
        return (ring.count == 0) | (close < max_similarity)

    return policy


def novel(max_similarity: Float[ArrayLike, ""]) -> AdmissionPolicy:
    """Admits an item whose `similarity` to every item is below `max_similarity`.

    `dissimilar` compares with the latest item only, so a view that returns is admitted
    again. True while the ring is empty. Costs one comparison per slot.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        close = jax.vmap(lambda item: similarity(item, candidate.item))(ring.slots)
        return jnp.max(close, where=ring.valid, initial=-jnp.inf) < max_similarity

    return policy


def most_redundant(ring: RingBuffer) -> Int32[Array, ""]:
    """Returns the most redundant slot: the older of the two most similar.

    Use it as `push(..., slot=most_redundant(ring))` to keep diverse rather than recent
    items in a full ring. Returns the oldest slot if fewer than two slots hold an item.
    Costs one comparison per pair of slots.
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
    """Admits a frame at least `k` frames after the one pushed last.

    True while the ring is empty. The difference is taken modulo 2**32, so it is correct
    after an overflow of the index.
    """

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        age = jnp.asarray(candidate.frame, jnp.int32) - ring.stamp[latest_slot(ring)]
        return (ring.count == 0) | (age >= k)

    return policy


def always() -> AdmissionPolicy:
    """Admits every frame."""
    return lambda ring, candidate: jnp.bool_(True)


def all_of(*policies: AdmissionPolicy) -> AdmissionPolicy:
    """Admits a frame if all policies admit it; without policies, every frame."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        answers = [p(ring, candidate) for p in policies]
        return reduce(jnp.logical_and, answers, jnp.bool_(True))

    return policy


def any_of(*policies: AdmissionPolicy) -> AdmissionPolicy:
    """Admits a frame if at least one policy admits it; without policies, none."""

    def policy(ring: RingBuffer, candidate: Candidate) -> Array:
        answers = [p(ring, candidate) for p in policies]
        return reduce(jnp.logical_or, answers, jnp.bool_(False))

    return policy


def confidence(probs: Float[Array, "H W C"]) -> Float32[Array, ""]:
    """The paper's r (section 2.3): the mean over pixels of sum_c p log p.

    This is the negative entropy in nats: 0 if every pixel is certain, -log C if the
    distribution is uniform everywhere. 0 log 0 is 0. The gradient is zero.

    Args:
        probs: summing to 1 over C.

    Returns:
        Computed in float32 whatever the dtype of `probs`.
    """
    if probs.ndim != 3 or not jnp.issubdtype(probs.dtype, jnp.floating):
        raise ValueError(
            f"probs is {probs.dtype}{list(probs.shape)}; it must be float [H, W, C] "
            "(use jax.vmap for a batch)"
        )
    p = jax.lax.stop_gradient(probs).astype(jnp.float32)
    return jax.scipy.special.xlogy(p, p).sum(axis=-1).mean()


def similarity(a: Item, b: Item) -> Float32[Array, ""]:
    """The paper's s (section 2.3): -sqrt(sum (a - b)^2), summed over all leaves.

    0 for equal items, lower for others. The gradient is defined as zero, because the
    root is not differentiable at a == b, which occurs with a still camera.

    Args:
        a: one item, leaves [...].
        b: another item with the same structure, shapes and dtypes.

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
