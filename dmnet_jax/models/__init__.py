"""Video segmentation networks with one interface, built from a config."""

from importlib import import_module

import jax.numpy as jnp

from dmnet_jax.config import Config
from dmnet_jax.config.model import NETWORKS
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.models.protocol import VideoSegmenter

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
    path, options, _ = NETWORKS[name]
    module, _, network = path.partition(".")
    return getattr(import_module(f"{__name__}.{module}"), network).from_config(
        config,
        num_classes=config.data.num_classes,
        axis_name=axis_name,
        dtype=jnp.dtype(config.model.dtype),
        **options,
    )


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
        global_values=model.global_values,
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
