"""The network of a finished run, opened the one way that every command opens it."""

import os
from typing import Any, NamedTuple

from dmnet_jax import models
from dmnet_jax.checkpoint import Which, load_variables
from dmnet_jax.config import Config
from dmnet_jax.provenance import checked
from dmnet_jax.weights.rendered import read_rendered

PRETRAINED = "rendered"
"""In place of a run directory: the shipped network, trained on rendered surgery."""


class TrainedRun(NamedTuple):
    """A network and what is known of it.

    Attributes:
        model: the network.
        variables: nested dicts of NumPy arrays.
        config: of its run.
        about: metadata of the checkpoint, by `provenance.describe`.
    """

    model: Any
    variables: Any
    config: Config
    about: dict[str, Any]


def load_run(run: str | os.PathLike[str], which: int | Which = "newest") -> TrainedRun:
    """The network of a run; changes nothing on disk.

    Args:
        run: run directory, or `PRETRAINED`.
        which: "newest", "best" (largest metric on the validation videos) or a step;
            the shipped network has one alone.

    Raises:
        CheckpointError: no good checkpoint.
        ValueError: it does not tell what was trained, or its network needs an extra
            that is not installed.
    """
    if os.fspath(run) == PRETRAINED:
        variables, about = read_rendered()
    else:
        variables, about = load_variables(run, which)
    config = checked(about, run)
    return TrainedRun(models.build(config), variables, config, about)
