"""Training state as named host arrays, each with a SHA-256, and back.

Names are paths, `variables/params/head/kernel`, so a checkpoint outlives the Python
classes that held its state, and a mismatch can be told by name.
"""

import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def to_host(state: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Copies a state to the host and describes it.

    Args:
        state: pytree of arrays, typed PRNG keys and Python numbers, whole on this
            process (on one device or replicated).

    Returns:
        The arrays by name, without those of size 0, and for every leaf by name its
        `shape`, `dtype`, `sha256`, and of a PRNG key its `key` type and `impl`; JSON.

    Raises:
        TypeError: a leaf is no array.
        ValueError: there are no numbers in it.
    """
    flat = flatten(state)
    raw = {n: jax.random.key_data(x) if _is_key(x) else x for n, x in flat.items()}
    arrays, leaves = {}, {}
    for name, leaf in jax.device_get(raw).items():
        # On CPU device_get is a view of memory the next step may be given to reuse.
        array = np.array(leaf, order="C")
        if array.dtype.kind in "OSUmM":
            raise TypeError(f"state leaf {name} is {type(leaf).__name__}, no array")
        key = flat[name]
        leaves[name] = {
            "shape": list(array.shape),
            "dtype": array.dtype.name,
            "key": str(key.dtype) if _is_key(key) else None,
            "impl": str(jax.random.key_impl(key)) if _is_key(key) else None,
            "sha256": _digest(array),
        }
        if array.size:
            arrays[name] = array
    if not arrays:
        raise ValueError("the state holds no numbers, so there is nothing to save")
    return arrays, leaves


def verify(
    stored: dict[str, np.ndarray], leaves: dict[str, Any]
) -> dict[str, np.ndarray]:
    """The described arrays, those of size 0 included, if each is what was saved.

    Args:
        stored: arrays by name, as read.
        leaves: their description by `to_host`.

    Raises:
        ValueError: an array is missing or differs; names it.
    """
    arrays = {}
    for name, leaf in leaves.items():
        shape = tuple(leaf["shape"])
        empty = np.zeros(shape, leaf["dtype"]) if math.prod(shape) == 0 else None
        array = stored.get(name, empty)
        if array is None:
            raise ValueError(f"{name} is missing")
        same = array.shape == shape and array.dtype.name == leaf["dtype"]
        if not same or _digest(array) != leaf["sha256"]:
            raise ValueError(f"{name} does not match its checksum")
        arrays[name] = array
    return arrays


def fit(arrays: dict[str, np.ndarray], leaves: dict[str, Any], target: Any) -> Any:
    """Puts arrays where a state has its leaves.

    Args:
        arrays: every leaf by name.
        leaves: their description by `to_host`.
        target: pytree; its arrays and `jax.ShapeDtypeStruct` say shape, dtype and
            sharding (the default device where they say none).

    Raises:
        ValueError: a leaf is missing, left over, or of another shape, dtype or PRNG.
    """
    wanted = flatten(target)
    for these, others, problem in (
        (wanted, leaves, "lacks {}, which this state has"),
        (leaves, wanted, "holds {}, which this state has not"),
    ):
        alone = [name for name in these if name not in others]
        if alone:
            more = f" and {len(alone) - 1} more" if alone[1:] else ""
            raise ValueError(problem.format(alone[0] + more))
    for name, leaf in wanted.items():
        saved, here = _saved_kind(leaves[name]), _kind(leaf)
        if saved != here:
            raise ValueError(f"{name} is {saved} there and {here} here")
    placed = [_place(arrays[n], x, leaves[n]["impl"]) for n, x in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(target), placed)


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by name, as in `variables/params/head/kernel`."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("two leaves of the state have the same name")
    return dict(zip(names, (leaf for _, leaf in pairs), strict=True))


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from names; what `flatten` gives for a tree of dicts, undone."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def _digest(array: np.ndarray) -> str:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return hashlib.sha256(flat.data).hexdigest()


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _saved_kind(leaf: dict[str, Any]) -> str:
    return f"{leaf['key'] or leaf['dtype']}{leaf['shape']}"


def _kind(leaf: Any) -> str:
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return f"{leaf.dtype}{list(data.shape)}"
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _place(array: np.ndarray, like: Any, impl: str | None) -> Any:
    if isinstance(like, bool | int | float):
        return type(like)(array[()])
    if isinstance(like, np.ndarray | np.generic):
        return array
    value: Any = array
    if impl is not None:
        value = jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
    return jax.device_put(value, like.sharding)
