"""One training step, the loop around it, and what a run directory holds."""

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
