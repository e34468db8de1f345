"""Encoders of the compared networks from torchvision's classifiers."""

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
    """The encoder's variables from `vgg11`, `vgg16`, `resnet18` or `resnet34`.

    Args:
        state: its state dict. The classifier may be there and is not used.
        source: what the arrays are, for messages.

    Returns:
        {"params": ..., "batch_stats": ...} of `VGG` (without statistics) or `ResNet`.

    Raises:
        WeightsError: it is of none of them.
    """
    unneeded = [
        name
        for name in state
        if name.endswith(".num_batches_tracked")
        or name.startswith(("classifier.", "fc."))
    ]
    tables = [vgg_table(layers) for layers in vgg.STAGES]
    tables += [resnet_table(blocks) for blocks in (resnet.RESNET18, resnet.RESNET34)]
    used = state.keys() - set(unneeded)
    for table in tables:
        if used == table.keys():
            return unflatten(rearrange(state, table, unneeded, source=source))
    raise WeightsError(
        f"{source}: of torchvision's networks, vgg11, vgg16, resnet18 and resnet34 can "
        "be used here (without batch norm in a VGG), and this is none of them"
    )


def vgg_table(layers: int) -> dict[str, str]:
    """{torchvision's name: ours} of a VGG, in which a pooling counts as a layer."""
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
    """{torchvision's name: ours} of a ResNet of basic blocks."""
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
            for conv, norm, own_conv, own_norm in layers:
                table[f"{theirs}.{conv}.weight"] = f"params/{ours}/{own_conv}/kernel"
                table |= norm_table(
                    f"{theirs}.{norm}.", f"{ours}/{own_norm}", TORCH_NORM
                )
    return table
