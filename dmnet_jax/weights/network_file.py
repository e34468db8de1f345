"""A trained network in one file: its variables, and in the header what it is.

The file is a `.safetensors` file, so reading it runs no code.
`checkpoint.runs.load_run` opens it like a run directory.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmnet_jax.weights.files import read_metadata, read_weights, write_safetensors
from dmnet_jax.weights.layout import WeightsError, unflatten

SUFFIX = ".safetensors"

CHANGES = ("averaged_with", "state_from", "adapted")
"""Fields of the metadata that state how an export changed the network."""

# Fields of a checkpoint's metadata that a network needs, and those that may be absent.
_NEEDED = ("config", "classes", "train_videos", "val_videos")
_KEPT = (*_NEEDED, "fold", "versions", *CHANGES)


def read_network(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables as float32, and the metadata, like `load_variables`.

    Args:
        path: a file of `write_network`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file is damaged, or has no description of the network.
    """
    arrays = read_weights(path)
    try:
        about = json.loads(read_metadata(path)["about"])
        missing = [name for name in _NEEDED if name not in about]
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: the header lacks the run's metadata; write the file with python "
            "-m dmnet_jax.export --format safetensors"
        ) from error
    if missing:
        raise WeightsError(f"{path}: the header lacks {', '.join(missing)}")
    return unflatten({n: a.astype(np.float32) for n, a in arrays.items()}), about


def write_network(
    path: Path, variables: Mapping[str, Any], about: Mapping[str, Any], card: str = ""
) -> str:
    """Writes a network for `read_network`; returns the file's checksum.

    Args:
        path: path ending in `.safetensors`.
        variables: variables of the network, of any dtype.
        about: metadata of the checkpoint.
        card: model card text: data, time and scores.

    Raises:
        WeightsError: see `write_safetensors`.
    """
    fields = {name: about[name] for name in _KEPT if name in about}
    return write_safetensors(
        path, variables, {"about": json.dumps(fields), "card": card}
    )
