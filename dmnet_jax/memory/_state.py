"""A state that is carried from frame to frame and renewed as far as it is trusted.

Where a ring keeps whole items or none, each number here is a mean of old and new: an
admission that is soft and per element. Written for one video; batch with `jax.vmap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from dmnet_jax.memory._policy import all_finite
from dmnet_jax.memory._ring import Item, check_same

if TYPE_CHECKING:
    # Shapes for readers, type checkers and tests; at run time JAX is enough.
    from jaxtyping import Bool, Float, Int32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GatedState(Generic[Item]):
    """What is carried on; all zeros before the first frame.

    Attributes:
        value: float leaves [...].
        count: frames that are in it.
    """

    value: Item
    count: Int32[Array, "*batch"]


def init_state(item: Item) -> GatedState[Item]:
    """An empty state.

    Args:
        item: a pytree of arrays or `jax.ShapeDtypeStruct`s, leaves [...]. Only shapes
            and dtypes are used.
    """

    def zeros(x: Any) -> Array:
        return jnp.zeros(jax.typeof(x).shape, jax.typeof(x).dtype)

    return GatedState(jax.tree.map(zeros, item), jnp.zeros((), jnp.int32))


def blend(
    state: GatedState[Item],
    new: Item,
    trust: Float[ArrayLike, "..."],
    *,
    where: Bool[ArrayLike, ""] = True,
) -> GatedState[Item]:
    """trust * new + (1 - trust) * old; the first frame's `new` as it is.

    What is not finite, `trust` included, leaves the state as it is.

    Args:
        state: before this frame.
        new: leaves [...], as those of the state.
        trust: 0..1, of a shape that broadcasts to each leaf.
        where: whether there is a frame at all.

    Raises:
        ValueError: at trace time, if `new` does not fit the state.
    """
    check_same(state.value, new, "the state", "new")
    taken = jnp.asarray(where) & all_finite((new, trust))
    trust = jnp.where(state.count > 0, trust, jnp.ones_like(trust))

    def mixed(old: Array, x: Array) -> Array:
        return jnp.where(taken, old + trust * (x - old), old).astype(old.dtype)

    return GatedState(jax.tree.map(mixed, state.value, new), state.count + taken)
