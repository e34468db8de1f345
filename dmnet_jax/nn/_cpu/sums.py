"""Means over positions, computed row by row.

XLA's CPU backend reduces the leading axes of a large map column by column, which is
slow.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

SMALL = 2**16
"""Number of elements below which a loop over rows is not worth its compile time."""


def position_means(
    terms: Callable[..., tuple[Array, ...]], *maps: Array
) -> tuple[Array, ...]:
    """Returns means [C] of `terms(*maps)` over positions, in the dtype of the terms.

    Args:
        terms: function of the maps' rows [W, C] to a tuple of [W, C].
        *maps: [rows, W, C].
    """
    rows, width, features = maps[0].shape

    def add(row: Any, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        here = terms(*(lax.dynamic_index_in_dim(x, row, keepdims=False) for x in maps))
        return tuple(total + term for total, term in zip(sums, here, strict=True))

    shapes = jax.eval_shape(terms, *(x[0] for x in maps))
    zeros = tuple(jnp.zeros((width, features), x.dtype) for x in shapes)
    sums = lax.fori_loop(0, rows, add, zeros)
    return tuple(x.sum(0) / (rows * width) for x in sums)
