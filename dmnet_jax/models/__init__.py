"""Video segmentation networks with one interface, built from a config."""

from typing import Any

import jax.numpy as jnp

from data_pipelines.loading.flow import require_opencv
from dmnet_jax.config import Config
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.linknet import LinkNet
from dmnet_jax.models.lwanet import LWANet
from dmnet_jax.models.paanet import PAANetStyle
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.models.tapnet import TAPNet
from dmnet_jax.models.tdnet import TDNet
from dmnet_jax.models.ternausnet import TernausNet

__all__ = [
    "DMNet",
    "VideoSegmenter",
    "build",
    "build_dmnet",
]


def build(config: Config, *, axis_name: str | None = None) -> VideoSegmenter:
    """Builds the network that a config describes.

    Args:
        config: uses `model`, `data.num_classes` and, for TDNet, `data.size` and
            `optim.auxiliary_weight`.
        axis_name: device axis over which batch norm is synchronized in training.

    Raises:
        ValueError: the network needs an optional dependency that is not installed.
    """
    name = config.model.name
    if name == "dmnet":
        return build_dmnet(config, axis_name=axis_name)
    shared: dict[str, Any] = {
        "num_classes": config.data.num_classes,
        "axis_name": axis_name,
        "dtype": jnp.dtype(config.model.dtype),
    }
    match name:
        case "ternausnet11":
            return TernausNet(layers=11, **shared)
        case "ternausnet16":
            return TernausNet(layers=16, **shared)
        case "linknet34":
            return LinkNet(**shared)
        case "raunet":
            return LinkNet(attention=True, **shared)
        case "paanet_style":
            return PAANetStyle(**shared)
        case "lwanet":
            return LWANet(encoder=config.model.encoder, **shared)
        case "td2_psp18" | "td4_psp18":
            height, width = config.data.size
            return TDNet(
                paths=2 if name == "td2_psp18" else 4,
                norm_size=(height // 8, width // 8),
                auxiliary=config.optim.auxiliary_weight > 0,
                **shared,
            )
        case "tapnet11":
            require_opencv()
            return TAPNet(**shared)


def build_dmnet(config: Config, *, axis_name: str | None = None) -> DMNet:
    """Like `build`, for code that supports DMNet only.

    Raises:
        ValueError: the config describes another network.
    """
    model = config.model
    if model.name != "dmnet":
        raise ValueError(f"this supports DMNet only; model.name is {model.name!r}")
    return DMNet(
        num_classes=config.data.num_classes,
        local=model.local,
        global_memory=model.global_memory,
        local_size=model.local_size,
        num_reads=model.num_reads,
        global_size=model.global_size,
        key_channels=model.key_channels,
        value_channels=model.value_channels,
        state=model.state,
        state_parts=model.state_parts,
        share_key_value=model.share_key_value,
        attention_dropout=model.attention_dropout,
        encoder=model.encoder,
        width=model.width,
        axis_name=axis_name,
        dtype=jnp.dtype(model.dtype),
    )
