"""Saved runs: their arrays, what they were made from, and how they are opened.

`runs.load_run` opens a trained network; it imports the networks and stands apart.

Orbax writes the arrays of a step and renames the finished folder. Its
`CheckpointManager` is not used: it deletes old steps before the new one has been read
back, refuses to replace a step, and returns flipped bits without an error. What
protects against what; tests fail without each:

    failure                            protection, in `checkpoints`, `folder`,
                                       `host_arrays`
    a write that went wrong            `_write` reads back before `publish`, `prune`
    bits that flipped in arrays        `verify` compares a digest of each
    metadata that was edited           `read_body` compares a digest; `_fault_of`
    a kill while a step is written     `incoming`, cleared at the next start
    a kill while one is replaced       `publish` keeps the old one in `trash`, from
                                       where `clear_leftovers` takes it back
    a kill while one is deleted        `prune` renames into `trash` first
    a step that cannot be read         `set_aside`, so that its number is free
    every step is damaged              `steps` refuses to begin anew
    a full disk                        `_write` asks for space and drops the traces of
                                       Orbax's threads; `wait` says what is intact
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
    # Loaded when asked for, so that a command line, which needs other modules of this
    # package, answers --help without JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.checkpoint.checkpoints"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
