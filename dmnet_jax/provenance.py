"""What a run was made from and with, kept inside its checkpoints and results."""

import dataclasses
import platform
from importlib.metadata import version
from typing import Any

import jax

import dmnet_jax
from data_pipelines.frames import FrameSource
from dmnet_jax.config import Config

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def describe(config: Config, train: FrameSource, val: FrameSource) -> dict[str, Any]:
    """JSON of config, classes, videos, versions and devices."""
    return {
        "config": dataclasses.asdict(config),
        "classes": [dataclasses.asdict(info) for info in train.classes],
        "train_videos": [video.name for video in train.videos],
        "val_videos": [video.name for video in val.videos],
        "versions": {
            "dmnet_jax": dmnet_jax.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        },
        "devices": [device.device_kind for device in jax.devices()],
    }
