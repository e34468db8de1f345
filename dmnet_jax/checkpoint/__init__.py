"""Saved runs: their arrays, what they were made from, and how they are opened.

`runs.load_run` opens a trained network; it imports the networks and stands apart.
"""

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
