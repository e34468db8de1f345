"""The shipped networks: DMNets trained on rendered surgery only.

A file contains a network's variables in float16 and, in its header, the run's config,
classes and a model card. No real images were used, so the weights can be redistributed.
See `docs/model_card.md` for the scores on real video.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmnet_jax.weights.files import read_metadata, read_weights, write_safetensors
from dmnet_jax.weights.layout import WeightsError, flatten, unflatten

SHIPPED = {
    "rendered": Path(__file__).with_name("rendered.safetensors"),
    "rendered-fast": Path(__file__).with_name("rendered_fast.safetensors"),
}
"""Files of the shipped networks by name; the fast one has half of the channels."""

# Fields of a checkpoint's metadata that are stored.
_KEPT = ("config", "classes", "train_videos", "val_videos", "fold", "versions")


def read_rendered(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the variables as float32, and the metadata, like `load_variables`.

    Args:
        path: one of `SHIPPED`, or a file of `write_rendered`.

    Raises:
        FileNotFoundError: this build of the package does not include the file.
        WeightsError: the file is damaged.
    """
    arrays = read_weights(path)
    try:
        about = json.loads(read_metadata(path)["about"])
        missing = [name for name in _KEPT if name not in about]
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: the header lacks the run's metadata") from error
    if missing:
        raise WeightsError(f"{path}: the header lacks {', '.join(missing)}")
    return unflatten({n: a.astype(np.float32) for n, a in arrays.items()}), about


def write_rendered(
    path: Path, variables: Mapping[str, Any], about: Mapping[str, Any], card: str = ""
) -> str:
    """Writes a run's variables for `read_rendered`; returns the file's checksum.

    Args:
        path: path ending in `.safetensors`.
        variables: variables of the network.
        about: metadata of the checkpoint.
        card: model card text: data, time and scores.

    Raises:
        WeightsError: a value is out of range for float16, or see `write_safetensors`.
    """
    halves = {}
    for name, array in flatten(variables).items():
        with np.errstate(over="ignore"):
            halves[name] = np.asarray(array).astype(np.float16)
        if not np.isfinite(halves[name]).all():
            raise WeightsError(f"{name}: has values out of range for float16")
    fields = {name: about[name] for name in _KEPT}
    return write_safetensors(path, halves, {"about": json.dumps(fields), "card": card})
