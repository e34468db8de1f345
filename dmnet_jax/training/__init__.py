"""The training step, the training loop and the run directory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmnet_jax.training.step import (
        MEMORY_MODULES,
        TrainState,
        as_floats,
        create_state,
        forward_loss,
        make_optimizer,
        pixel_counts,
        split_params,
        summarize_metrics,
        train_step,
    )

__all__ = [
    "MEMORY_MODULES",
    "TrainState",
    "create_state",
    "forward_loss",
    "make_optimizer",
    "pixel_counts",
    "as_floats",
    "summarize_metrics",
    "split_params",
    "train_step",
]


def __getattr__(name: str) -> Any:
    # Imported lazily: command lines use other modules of this package, and their
    # --help must not import JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.training.step"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
