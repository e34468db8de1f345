"""From another framework's names and axis orders to this project's.

Nested variables are written flat with "/" between names, collection first:
"params/backbone/stem/kernel". A foreign file is described by one table of
`{foreign name: our name}`, which has to account for every array of the file.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from dmnet_jax.nn.mobilenet import STAGES

# Our name of a batch norm's array -> the part of the variables that it belongs to.
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
    """A weight file that cannot be used; the message names file and array."""


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
    """Renames `arrays` and turns their axes so that convolution kernels are HWIO.

    Args:
        arrays: by foreign name; PyTorch's OIHW or Keras' HWIO kernels, float.
        table: {foreign name: our name}, each array of the network once.
        unneeded: foreign names that are known and of no use here.
        source: what the arrays are, for messages.

    Returns:
        float32 arrays by our flat name.

    Raises:
        WeightsError: an array is missing, or is neither in `table` nor in `unneeded`.
    """
    missing = [name for name in table if name not in arrays]
    if missing:
        raise WeightsError(f"{source} lacks {_some(missing)}")
    strange = [n for n in arrays if n not in table and n not in unneeded]
    if strange:
        raise WeightsError(
            f"{source} has {_some(strange)}, for which this network has no place"
        )
    assert len(set(table.values())) == len(table)
    return {
        ours: _turned(name, np.asarray(arrays[name], np.float32))
        for name, ours in table.items()
    }


def check_shapes(
    ours: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    *,
    source: str,
) -> None:
    """Compares flat arrays with the shapes the network expects.

    Args:
        ours: by our flat name.
        expected: shapes by our flat name.
        names: {our name: the name to use in messages}.
        source: what the arrays are, for messages.

    Raises:
        WeightsError: other names, or another shape.
    """
    if missing := [name for name in expected if name not in ours]:
        raise WeightsError(f"{source} gives nothing for {_some(missing)}")
    if strange := [names.get(name, name) for name in ours if name not in expected]:
        raise WeightsError(f"{source} has {_some(strange)}, which the network lacks")
    for name, shape in expected.items():
        if ours[name].shape != shape:
            raise WeightsError(
                f"{names.get(name, name)} in {source} has shape {ours[name].shape} "
                f"in the order of this project; the network expects {shape}"
            )


def norm_table(theirs: str, ours: str, names: Mapping[str, str]) -> dict[str, str]:
    """One batch norm's part of a table.

    Args:
        theirs: foreign prefix, separator included.
        ours: our module path below the collection.
        names: {our array name: foreign array name}.
    """
    return {
        theirs + names[name]: f"{part}/{ours}/{name}" for name, part in NORM.items()
    }


def block_indices() -> list[list[int]]:
    """The encoder's block numbers, stage by stage: [[0], [1, 2], [3, 4, 5], ...]."""
    stages: list[list[int]] = []
    start = 0
    for _, _, repeats, _ in STAGES:
        stages.append(list(range(start, start + repeats)))
        start += repeats
    return stages


def _turned(name: str, array: np.ndarray) -> np.ndarray:
    """OIHW, or Keras' depthwise (3, 3, C, 1), -> HWIO; anything else as it is."""
    if array.ndim != 4:
        return array
    if name.endswith(".weight"):
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0))
    if name.endswith("/depthwise_kernel"):
        return np.ascontiguousarray(array.transpose(0, 1, 3, 2))
    return array


def _some(names: list[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
