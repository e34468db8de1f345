"""Converts names and axis orders of other frameworks to this project's.

Nested variables are flattened with "/" between names, collection first:
"params/backbone/stem/kernel". The layout of a foreign file is described by one table
`{foreign name: our name}`, which must account for every array in the file.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dmnet_jax.nn.mobilenet import STAGES

# Our name of a batch norm's array -> the collection that it belongs to.
NORM = {
    "scale": "params",
    "bias": "params",
    "mean": "batch_stats",
    "var": "batch_stats",
}


# Our name of a batch norm's array -> PyTorch's.
TORCH_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class WeightsError(ValueError):
    """Raised when a weight file cannot be used; the message names file and array."""


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"params": {"a": {"kernel": x}}} -> {"params/a/kernel": x}, as NumPy arrays."""
    flat: dict[str, np.ndarray] = {}
    for name, value in variables.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()}
        else:
            flat[name] = np.asarray(value)
    return flat


def unflatten(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`.

    Raises:
        WeightsError: a name is both an array and a group of arrays.
    """
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *groups, leaf = name.split("/")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise WeightsError(f"{group} in {name} is an array and a group at once")
        if leaf in node:
            raise WeightsError(f"{name} is an array and a group at once")
        node[leaf] = array
    return nested


def rearrange(
    arrays: Mapping[str, np.ndarray],
    table: Mapping[str, str],
    unneeded: Collection[str] = (),
    *,
    source: str,
) -> dict[str, np.ndarray]:
    """Renames `arrays` and transposes convolution kernels to HWIO.

    Args:
        arrays: float arrays by foreign name; kernels in OIHW (PyTorch) or HWIO (Keras)
        table: {foreign name: our name}, with each array of the network once.
        unneeded: known foreign names that are not used.
        source: description of the arrays for messages.

    Returns:
        float32 arrays by our flat name.

    Raises:
        WeightsError: an array is missing, or is neither in `table` nor in `unneeded`.
    """
    missing = [name for name in table if name not in arrays]
    if missing:
        raise WeightsError(f"{source} lacks {_some(missing)}")
    unknown = [n for n in arrays if n not in table and n not in unneeded]
    if unknown:
        raise WeightsError(
            f"{source} has {_some(unknown)}, which this network does not have"
        )
    assert len(set(table.values())) == len(table)
    return {
        ours: _turned(name, np.asarray(arrays[name], np.float32))
        for name, ours in table.items()
    }


def check_shapes(
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    *,
    source: str,
) -> None:
    """Checks flat arrays against the shapes that the network expects.

    Args:
        arrays: arrays by our flat name.
        expected: shapes by our flat name.
        names: {our name: the name to use in messages}.
        source: description of the arrays for messages.

    Raises:
        WeightsError: names or shapes differ.
    """
    if missing := [name for name in expected if name not in arrays]:
        raise WeightsError(f"{source} lacks {_some(missing)}")
    if unknown := [names.get(name, name) for name in arrays if name not in expected]:
        raise WeightsError(
            f"{source} has {_some(unknown)}, which the network does not have"
        )
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise WeightsError(
                f"{names.get(name, name)} in {source} has shape {arrays[name].shape} "
                f"after conversion to HWIO; the network expects {shape}"
            )


def norm_table(theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, str]:
    """Returns the table entries of one batch norm.

    Args:
        theirs: foreign prefix, including the separator.
        ours: our module path below the collection.
        names: {our array name: foreign array name}.
    """
    return {
        theirs + names[name]: f"{part}/{ours}/{name}" for name, part in NORM.items()
    }


def block_indices() -> list[list[int]]:
    """Returns the encoder's block indices by stage: [[0], [1, 2], [3, 4, 5], ...]."""
    stages: list[list[int]] = []
    start = 0
    for _, _, repeats, _ in STAGES:
        stages.append(list(range(start, start + repeats)))
        start += repeats
    return stages


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    """Transposes OIHW, or Keras' depthwise (3, 3, C, 1), to HWIO."""
    if array.ndim != 4:
        return array
    if name.endswith(".weight"):
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if name.endswith("/depthwise_kernel"):
        return np.ascontiguousarray(array.transpose(0, 1, 3, 2))
    return array


def _some(names: list[str]) -> str:
    """Lists up to three names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
