"""Import of the baseline networks' encoders from torchvision's classifiers."""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from dmnet_jax.nn import resnet, vgg
from dmnet_jax.weights.layout import (
    TORCH_NORM,
    WeightsError,
    norm_table,
    rearrange,
    unflatten,
)


def from_torchvision_classifier(
    state: Mapping[str, np.ndarray], source: str
) -> dict[str, Any]:
    """Converts `vgg11`, `vgg16`, `resnet18` or `resnet34` to the encoder's variables.

    Args:
        state: state dict. The classifier is ignored.
        source: description of the arrays for messages.

    Returns:
        {"params": ..., "batch_stats": ...} of `VGG` (without statistics) or `ResNet`.

    Raises:
        WeightsError: the state dict belongs to none of these networks.
    """
    unneeded = [
        name
        for name in state
        if name.endswith(".num_batches_tracked")
        or name.startswith(("classifier.", "fc."))
    ]
    tables = [vgg_table(layers) for layers in vgg.STAGES]
    tables += [resnet_table(blocks) for blocks in (resnet.RESNET18, resnet.RESNET34)]
    names = state.keys() - set(unneeded)
    for table in tables:
        if names == table.keys():
            return unflatten(rearrange(state, table, unneeded, source=source))
    raise WeightsError(
        f"{source}: not a supported torchvision network; use vgg11, vgg16 (without "
        "batch norm), resnet18 or resnet34"
    )


def vgg_table(layers: int) -> dict[str, str]:
    """Returns {torchvision's name: ours} of a VGG; torchvision counts poolings too."""
    table = {}
    repeats = vgg.STAGES[layers]
    starts = [0, *accumulate(2 * n + 1 for n in repeats)]
    for stage, count in enumerate(repeats):
        for repeat in range(count):
            theirs = f"features.{starts[stage] + 2 * repeat}"
            ours = f"params/conv{stage}_{repeat}"
            table[f"{theirs}.weight"] = f"{ours}/kernel"
            table[f"{theirs}.bias"] = f"{ours}/bias"
    return table


def resnet_table(blocks: tuple[int, ...]) -> dict[str, str]:
    """Returns {torchvision's name: ours} of a ResNet with basic blocks."""
    table = {"conv1.weight": "params/stem/kernel"}
    table |= norm_table("bn1.", "stem_norm", TORCH_NORM)
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            theirs, ours = f"layer{stage}.{block}", f"layer{stage}_{block}"
            layers = [("conv1", "bn1", "conv1", "norm1")]
            layers += [("conv2", "bn2", "conv2", "norm2")]
            if block == 0 and stage > 1:
                shortcut = "downsample.0", "downsample.1", "project", "project_norm"
                layers += [shortcut]
            for conv, norm, flax_conv, flax_norm in layers:
                table[f"{theirs}.{conv}.weight"] = f"params/{ours}/{flax_conv}/kernel"
                table |= norm_table(
                    f"{theirs}.{norm}.", f"{ours}/{flax_norm}", TORCH_NORM
                )
    return table
