"""A gated recurrent state: a weighted mean of old and new values.

A ring buffer admits a whole item or none. Here, admission is soft and per element.
Written for one video (one stream); batch with `jax.vmap`.
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
    """A state that is carried from frame to frame; zeros before the first frame.

    Attributes:
        value: the state, float leaves [...].
        count: number of frames that were blended into it.
    """

    value: Item
    count: Int32[Array, "*batch"]


def init_state(item: Item) -> GatedState[Item]:
    """Creates an empty state.

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
    """Updates the state to `trust * new + (1 - trust) * old`.

    The first frame is used unchanged. If `new` or `trust` is not finite, the state is
    not updated.

    Args:
        state: state before this frame.
        new: values of this frame, leaves [...] like those of the state.
        trust: weights in 0..1, of a shape that broadcasts to each leaf.
        where: whether to update the state.

    Raises:
        ValueError: at trace time, if `new` does not match the state.
    """
    check_same(state.value, new, "the state", "new")
    update = jnp.asarray(where) & all_finite((new, trust))
    trust = jnp.where(state.count > 0, trust, jnp.ones_like(trust))

    def blend_leaf(old: Array, x: Array) -> Array:
        return jnp.where(update, old + trust * (x - old), old).astype(old.dtype)

    return GatedState(jax.tree.map(blend_leaf, state.value, new), state.count + update)
