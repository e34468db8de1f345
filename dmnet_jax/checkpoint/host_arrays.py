"""Conversion of training states to named host arrays with digests, and back.

Names are paths, such as `variables/params/head/kernel`. A checkpoint therefore does not
depend on Python classes, and errors can name the array that does not match.
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
        state: pytree of arrays, typed PRNG keys and Python numbers, fully addressable
            in this process (on one device or replicated).

    Returns:
        The arrays by name, without those of size 0, and a JSON description of every
        leaf by name: `shape`, `dtype`, `sha256`, and for PRNG keys `key` (their dtype)
        and `impl`.

    Raises:
        TypeError: a leaf is not an array.
        ValueError: the state contains no numbers.
    """
    flat = flatten(state)
    raw = {n: jax.random.key_data(x) if _is_key(x) else x for n, x in flat.items()}
    arrays, leaves = {}, {}
    for name, leaf in jax.device_get(raw).items():
        # On CPUs, device_get returns a view of memory that may be donated to the next
        # step.
        array = np.array(leaf, order="C")
        if array.dtype.kind in "OSUmM":
            raise TypeError(
                f"state leaf {name} is {type(leaf).__name__}; it must be an array"
            )
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
        raise ValueError("the state contains no numbers, so there is nothing to save")
    return arrays, leaves


def verify(
    stored: dict[str, np.ndarray], leaves: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Checks arrays against their description.

    Args:
        stored: arrays by name, as read.
        leaves: their description from `to_host`.

    Returns:
        All described arrays by name, including those of size 0.

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


def fill_target(
    arrays: dict[str, np.ndarray], leaves: dict[str, Any], target: Any
) -> Any:
    """Replaces the leaves of a pytree by saved arrays.

    Args:
        arrays: all arrays by name.
        leaves: their description from `to_host`.
        target: pytree; its arrays and `jax.ShapeDtypeStruct`s define shape, dtype and
            sharding (without one, the default device).

    Raises:
        ValueError: a leaf is missing, superfluous, or has another shape, dtype or PRNG
            implementation.
    """
    expected = flatten(target)
    for names, others, problem in (
        (expected, leaves, "lacks {}, which this state has"),
        (leaves, expected, "has {}, which this state lacks"),
    ):
        unmatched = [name for name in names if name not in others]
        if unmatched:
            more = f" and {len(unmatched) - 1} more" if unmatched[1:] else ""
            raise ValueError(problem.format(unmatched[0] + more))
    for name, leaf in expected.items():
        saved_type, target_type = _saved_type(leaves[name]), _leaf_type(leaf)
        if saved_type != target_type:
            raise ValueError(
                f"{name} is saved as {saved_type}, but this state has {target_type}"
            )
    values = [_place(arrays[n], x, leaves[n]["impl"]) for n, x in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(target), values)


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves by name, such as `variables/params/head/kernel`."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("two leaves of the state have the same name")
    return dict(zip(names, (leaf for _, leaf in pairs), strict=True))


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Builds nested dicts from names; the inverse of `flatten` for trees of dicts."""
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


def _saved_type(leaf: dict[str, Any]) -> str:
    return f"{leaf['key'] or leaf['dtype']}{leaf['shape']}"


def _leaf_type(leaf: Any) -> str:
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return f"{leaf.dtype}{list(data.shape)}"
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _place(array: np.ndarray, like: Any, impl: str | None) -> Any:
    """Converts a host array to the type and sharding of `like`."""
    if isinstance(like, bool | int | float):
        return type(like)(array[()])
    if isinstance(like, np.ndarray | np.generic):
        return array
    value: Any = array
    if impl is not None:
        value = jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
    return jax.device_put(value, like.sharding)
