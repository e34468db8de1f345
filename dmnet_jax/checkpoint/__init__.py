"""Saved runs: their arrays, what they were made from, and how they are opened.

`runs.load_run` opens a trained network; it imports the networks and stands apart.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmnet_jax.checkpoint.checkpoints import (
        Checkpoints,
        Which,
        load_variables,
        read_metadata,
    )

__all__ = [
    "Checkpoints",
    "Which",
    "load_variables",
    "read_metadata",
]


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that a command line, which needs other modules of this
    # package, answers --help without JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.checkpoint.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
