"""Wrong memories, which show whether a network's gain comes from its memory.

A memory is any pytree with leaves [B, ...]; no other structure is assumed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def is_empty(memory: Any) -> bool:
    """Returns whether a memory has no leaves."""
    return not jax.tree.leaves(memory)


def shuffled(memory: Any, key: Array) -> Any:
    """Shuffles the spatial positions of a memory.

    Floating-point leaves with four or more axes are treated as maps [B, ..., h, w, C].
    Their positions are permuted with one permutation for each size (h, w), so that maps
    of equal size stay aligned. Other leaves do not change.

    Args:
        memory: leaves [B, ...].
        key: PRNG key of the permutations.
    """

    def shuffle(leaf: Any) -> Any:
        if leaf.ndim < 4 or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        height, width = leaf.shape[-3:-1]
        leaf_key = jax.random.fold_in(jax.random.fold_in(key, height), width)
        order = jax.random.permutation(leaf_key, height * width)
        flat = leaf.reshape(*leaf.shape[:-3], height * width, leaf.shape[-1])
        return flat[..., order, :].reshape(leaf.shape)

    return jax.tree.map(shuffle, memory)
