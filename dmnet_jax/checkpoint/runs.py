"""Loading of trained networks, as used by all commands."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax import models
from dmnet_jax.checkpoint.checkpoints import Which, load_variables
from dmnet_jax.checkpoint.provenance import validated_config
from dmnet_jax.config import Config
from dmnet_jax.models.scales import at_scales
from dmnet_jax.weights.network_file import SUFFIX, read_network
from dmnet_jax.weights.rendered import SHIPPED

PRETRAINED = "rendered"
"""The shipped network, trained on rendered surgery; used like a run directory."""
PRETRAINED_FAST = "rendered-fast"
"""The shipped network with half of the channels, for real time on a CPU."""


class TrainedRun(NamedTuple):
    """A trained network.

    Attributes:
        model: the network.
        variables: its variables, nested dicts of NumPy arrays.
        config: config of its run.
        about: metadata of the checkpoint, from `provenance.describe`.
    """

    model: Any
    variables: Any
    config: Config
    about: dict[str, Any]


def load_run(
    run: str | os.PathLike[str],
    which: int | Which = "newest",
    *,
    memory: bool = True,
    scales: Sequence[float] = (),
) -> TrainedRun:
    """Loads the network of a run. Nothing is changed on disk.

    Args:
        run: run directory, `PRETRAINED`, `PRETRAINED_FAST`, or a `.safetensors` file
            that `python -m dmnet_jax.export` wrote.
        which: "newest", "best" (largest metric on the validation videos) or a step;
            ignored unless `run` is a run directory.
        memory: whether to use the network's memory. False gives the single-frame
            network, for images that are not consecutive frames.
        scales: further sizes at which frames are segmented, see `DMNet.scales`.

    Raises:
        CheckpointError: there is no intact checkpoint.
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, the metadata is invalid, the weights do not
            match the config, or the network needs an extra that is not installed.
    """
    name = os.fspath(run)
    file = SHIPPED.get(name) or (Path(name) if name.endswith(SUFFIX) else None)
    if file is not None:
        variables, about = read_network(file)
    else:
        variables, about = load_variables(run, which)
    config = validated_config(about, run)
    model = models.build(config)
    _check_shapes(model, variables, os.fspath(run))
    model = model if memory else model.single_frame()
    model = at_scales(model, scales) if scales else model
    return TrainedRun(model, variables, config, about)


def add_state(trained: TrainedRun, source: TrainedRun, name: str) -> TrainedRun:
    """Gives a network the trained prediction state of another one.

    A state knows nothing of its network but the predictions, so it works on any network
    and number of classes, without training. A state that the network already has is
    replaced.

    Args:
        trained: the network.
        source: the network with the state.
        name: name of the source, for errors.

    Raises:
        ValueError: the source has no state, or the network is not a DMNet.
    """
    model = source.config.model
    if trained.config.model.name != "dmnet":
        raise ValueError(
            f"a {trained.config.model.name} has no prediction state; only a dmnet has"
        )
    if model.name != "dmnet" or not model.state:
        raise ValueError(f"{name} has no prediction state")
    fields = {"state": True, "state_parts": list(model.state_parts)}
    config = trained.about["config"]
    config = {**config, "model": {**config["model"], **fields}}
    about = {**trained.about, "config": config, "state_from": source.config.name}
    validated = validated_config(about, name)
    params = dict(trained.variables["params"])
    params["prediction_state"] = source.variables["params"]["prediction_state"]
    variables = {**trained.variables, "params": params}
    return TrainedRun(models.build(validated), variables, validated, about)


def average_weights(
    trained: TrainedRun, others: Mapping[str, TrainedRun]
) -> TrainedRun:
    """Averages a network's variables with those of other networks of the same shape.

    Averages help if all of them started from the same weights (Wortsman et al., "Model
    soups", ICML 2022); otherwise they are usually useless.

    Args:
        trained: the network; config and metadata of the result are its own.
        others: networks by name, for errors and the metadata.

    Raises:
        ValueError: a network has other variables or shapes.
    """
    expected = _shapes(trained.variables)
    for name, other in others.items():
        if difference := _first_difference(_shapes(other.variables), expected):
            raise ValueError(
                f"{name}: {difference}; only networks of the same architecture can be "
                "averaged"
            )

    def mean(*arrays: Any) -> np.ndarray:
        # float64 rounds once, so the order of the runs does not matter.
        return np.mean(arrays, axis=0, dtype=np.float64).astype(arrays[0].dtype)

    trees = [trained.variables, *(other.variables for other in others.values())]
    configs = [other.config for other in others.values()]
    names = [f"{config.name}, seed {config.train.seed}" for config in configs]
    about = {**trained.about, "averaged_with": names}
    return trained._replace(variables=jax.tree.map(mean, *trees), about=about)


def output_folder(run: str | os.PathLike[str]) -> Path:
    """Returns the folder for results of a network: the run directory, if it is one.

    For a file, it is the folder beside it without the suffix.
    """
    path = Path(run)
    return path.with_suffix("") if path.suffix == SUFFIX else path


def _check_shapes(model: Any, variables: Any, run: str) -> None:
    """Rejects variables of another network; the error names the first difference.

    The network is traced to get its shapes, which takes 0.5 s (2 cores of an AMD EPYC,
    2026-11-26).
    """

    def init() -> Any:
        key = jax.random.key(0)
        memory = model.init_memory(1, (64, 64), key)
        return model.init(key, memory, jnp.zeros((1, 1, 64, 64, 3), jnp.uint8))

    expected, saved = _shapes(jax.eval_shape(init)), _shapes(variables)
    if difference := _first_difference(saved, expected):
        raise ValueError(f"{run}: its weights do not match its config: {difference}")


def _first_difference(
    shapes: dict[str, list[int]], expected: dict[str, list[int]]
) -> str:
    """Returns the first difference between results of `_shapes`, or an empty string."""
    for name in sorted({*expected, *shapes}):
        if expected.get(name) != shapes.get(name):
            return (
                f"{name} is {shapes.get(name, 'missing')}, expected "
                f"{expected.get(name, 'none')}"
            )
    return ""


def _shapes(variables: Any) -> dict[str, list[int]]:
    """Returns the shapes of parameters and batch statistics by name."""
    weights = {n: variables[n] for n in ("params", "batch_stats") if n in variables}
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape)
        for path, leaf in leaves
    }
