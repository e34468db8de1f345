"""Wrong memories, to see whether a network's gain comes from what it remembers.

A memory is any pytree whose leaves lead with [B]; nothing here knows more of it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def is_empty(memory: Any) -> bool:
    """Whether a network remembers nothing at all."""
    return not jax.tree.leaves(memory)


def shuffled(memory: Any, key: Array) -> Any:
    """The memory with what it knows of places mixed up.

    Floating leaves of four or more axes are taken for maps [B, ..., h, w, C]; all
    their places (h, w) are permuted, by one permutation for each (h, w), so that maps
    of one size still fit each other. Everything else is left as it is.

    Args:
        memory: leaves [B, ...].
        key: of the permutations.
    """

    def shuffle(leaf: Any) -> Any:
        if leaf.ndim < 4 or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        height, width = leaf.shape[-3:-1]
        own = jax.random.fold_in(jax.random.fold_in(key, height), width)
        order = jax.random.permutation(own, height * width)
        flat = leaf.reshape(*leaf.shape[:-3], height * width, leaf.shape[-1])
        return flat[..., order, :].reshape(leaf.shape)

    return jax.tree.map(shuffle, memory)
