"""The shipped network: a DMNet that was trained on rendered surgery alone.

`rendered.safetensors` holds its variables in float16 and, in its header, the run that
made it: config, classes and a model card. No real picture was used, so the weights may
be passed on; `docs/model_card.md` has the scores on real video.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmnet_jax.weights.files import read_metadata, read_weights, write_safetensors
from dmnet_jax.weights.layout import WeightsError, flatten, unflatten

RENDERED = Path(__file__).with_name("rendered.safetensors")

# What of a checkpoint's metadata goes along.
_KEPT = ("config", "classes", "train_videos", "val_videos", "fold", "versions")


def read_rendered(path: Path = RENDERED) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables, float32, and the metadata, as `checkpoint.load_variables`.

    Raises:
        FileNotFoundError: this build of the package has no such file.
        WeightsError: the file is damaged.
    """
    arrays = read_weights(path)
    try:
        about = json.loads(read_metadata(path)["about"])
        missing = [name for name in _KEPT if name not in about]
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: header without the run's description") from error
    if missing:
        raise WeightsError(f"{path}: header without {', '.join(missing)}")
    return unflatten({n: a.astype(np.float32) for n, a in arrays.items()}), about


def write_rendered(
    path: Path, variables: Mapping[str, Any], about: Mapping[str, Any], card: str = ""
) -> str:
    """Writes a run's variables as `read_rendered` reads them; the file's checksum.

    Args:
        path: ends in `.safetensors`.
        variables: of a network.
        about: the checkpoint's metadata.
        card: notes on data, time and scores.

    Raises:
        WeightsError: a value that float16 cannot hold, or as `write_safetensors`.
    """
    halves = {}
    for name, array in flatten(variables).items():
        with np.errstate(over="ignore"):
            halves[name] = np.asarray(array).astype(np.float16)
        if not np.isfinite(halves[name]).all():
            raise WeightsError(f"{name}: has values that float16 cannot hold")
    kept = {name: about[name] for name in _KEPT}
    return write_safetensors(path, halves, {"about": json.dumps(kept), "card": card})
