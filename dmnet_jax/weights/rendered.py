"""The shipped networks: DMNets trained on rendered surgery only.

A file contains a network's variables in float16 and, in its header, the run's config,
classes and a model card. No real images were used, so the weights can be redistributed.
See `docs/model_card.md` for the scores on real video.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmnet_jax.weights.layout import WeightsError, flatten
from dmnet_jax.weights.network_file import write_network

SHIPPED = {
    "rendered": Path(__file__).with_name("rendered.safetensors"),
    "rendered-fast": Path(__file__).with_name("rendered_fast.safetensors"),
}
"""Files of the shipped networks by name; the fast one has half of the channels."""


def write_rendered(
    path: Path, variables: Mapping[str, Any], about: Mapping[str, Any], card: str = ""
) -> str:
    """Writes a run's variables in float16; returns the file's checksum.

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
    return write_network(path, halves, about, card)
