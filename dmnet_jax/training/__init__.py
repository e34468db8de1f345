"""One training step, the loop around it, and what a run directory holds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmnet_jax.training.step import (
        MEMORY_MODULES,
        TrainState,
        create_state,
        forward_loss,
        make_optimizer,
        pixel_counts,
        plain,
        readable,
        split_params,
        train_step,
    )

__all__ = [
    "MEMORY_MODULES",
    "TrainState",
    "create_state",
    "forward_loss",
    "make_optimizer",
    "pixel_counts",
    "plain",
    "readable",
    "split_params",
    "train_step",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that a command line, which needs other modules of this
    # package, answers --help without JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.training.step"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
