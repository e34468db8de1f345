"""From a run's data configuration to videos: what trains and what validates."""

from dmnet_jax.datasets.videos import (
    check_masks,
    open_dataset,
    open_split,
    open_validation,
    open_videos,
    split_names,
)

__all__ = [
    "check_masks",
    "open_dataset",
    "open_split",
    "open_validation",
    "open_videos",
    "split_names",
]
