"""The network of a finished run, opened the one way that every command opens it."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmnet_jax import models
from dmnet_jax.checkpoint.checkpoints import Which, load_variables
from dmnet_jax.checkpoint.provenance import checked
from dmnet_jax.config import Config
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


def load_run(
    run: str | os.PathLike[str], which: int | Which = "newest", *, memory: bool = True
) -> TrainedRun:
    """The network of a run; changes nothing on disk.

    Args:
        run: run directory, or `PRETRAINED`.
        which: "newest", "best" (largest metric on the validation videos) or a step;
            the shipped network has one alone.
        memory: whether to keep the network's memory; False gives the single-frame
            network, for pictures that are no video.

    Raises:
        CheckpointError: no good checkpoint.
        ValueError: it does not tell what was trained, its weights do not fit that, or
            its network needs an extra that is not installed.
    """
    if os.fspath(run) == PRETRAINED:
        variables, about = read_rendered()
    else:
        variables, about = load_variables(run, which)
    config = checked(about, run)
    model = models.build(config)
    _check_fit(model, variables, os.fspath(run))
    model = model if memory else model.single_frame()
    return TrainedRun(model, variables, config, about)


def _check_fit(model: Any, variables: Any, run: str) -> None:
    """Refuses variables that are not of this network, naming the first that differs.

    The network is traced for its shapes: 0.5 s on 2 cores of an AMD EPYC (2026-11-26).
    """

    def init() -> Any:
        key = jax.random.key(0)
        memory = model.init_memory(1, (64, 64), key)
        return model.init(key, memory, jnp.zeros((1, 1, 64, 64, 3), jnp.uint8))

    wanted = _shapes(jax.eval_shape(init))
    found = _shapes(variables)
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise ValueError(
                f"{run}: its weights do not fit its config: {name} is "
                f"{found.get(name, 'missing')}, expected {wanted.get(name, 'none')}"
            )


def _shapes(variables: Any) -> dict[str, list[int]]:
    """Of parameters and statistics, by name."""
    networks = {n: variables[n] for n in ("params", "batch_stats") if n in variables}
    leaves = jax.tree_util.tree_leaves_with_path(networks)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape)
        for path, leaf in leaves
    }
