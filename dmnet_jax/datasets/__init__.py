"""Opening of the training and validation videos of a data configuration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # Imported lazily, so that importing the package is fast.
    if name in __all__:
        return getattr(import_module("dmnet_jax.datasets.videos"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
