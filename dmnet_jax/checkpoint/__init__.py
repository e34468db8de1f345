"""Checkpoints: saved states, their metadata, and loading of trained networks.

`runs.load_run` loads a trained network. It imports the networks and is therefore not
exported here.

Orbax writes the arrays of a step and renames the finished folder. Its
`CheckpointManager` is not used: it deletes old steps before the new one has been read
back, cannot replace a step, and returns flipped bits without an error. These measures
protect against failures, each covered by a test:

    failure                            protection, in `checkpoints`, `folder`,
                                       `host_arrays`
    a corrupt write                    `_write` reads back before `publish`, `prune`
    flipped bits in arrays             `verify` compares a digest of each array
    edited metadata                    `read_body` compares a digest; `_find_fault`
    a kill while a step is written     `incoming`, cleared at the next start
    a kill while a step is replaced    `publish` keeps the old step in `trash`, from
                                       where `clear_leftovers` restores it
    a kill while a step is deleted     `prune` renames it into `trash` first
    an unreadable step                 `set_aside`, so that its number is free
    every step is damaged              `steps` raises instead of starting from scratch
    a full disk                        `_write` checks the free space and drops the log
                                       output of Orbax's threads; `wait` reports which
                                       step is intact
    donated memory                     `to_host` copies; on CPUs a view would change
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
    # Imported lazily: command lines use other modules of this package, and their
    # --help must not import JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.checkpoint.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
