"""Divisions of a dataset's videos, and the training of one cell of a table."""

import dataclasses
from collections.abc import Iterator
from typing import Literal, TypeAlias

from dmnet_jax.config import Config, ConfigError, DataConfig
from dmnet_jax.process import StopRequest

Divisions: TypeAlias = Literal["recipe", "folds", "leave-one-out"]
"""The recipe's own videos or fold, all folds of the dataset, or each video of
data.train and data.val as the validation video once."""


def divisions(config: Config, kind: Divisions) -> Iterator[tuple[str, DataConfig]]:
    """Yields the name and data configuration of each division of the videos.

    Raises:
        ValueError: the recipe does not have such divisions.
    """
    data = config.data
    if kind == "recipe":
        yield f"fold{data.fold}", data
    elif kind == "folds":
        from dmnet_jax.training.cross_validation import select_folds

        for fold in select_folds(config, "all"):
            yield f"fold{fold}", dataclasses.replace(data, fold=fold)
    else:
        videos = [*data.train, *data.val]
        if len(videos) < 2 or not (data.train and data.val):
            raise ConfigError(
                "--divisions leave-one-out needs the names of the videos in data.train "
                "and data.val; name them, or use --divisions folds"
            )
        for video in videos:
            rest = tuple(name for name in videos if name != video)
            yield video, dataclasses.replace(data, train=rest, val=(video,))


def train_cell(config: Config, stop: StopRequest) -> bool:
    """Trains a run unless it is finished; returns whether it is now.

    Raises:
        ValueError: its run directory belongs to another recipe; see also `train.train`.
    """
    from dmnet_jax.cli import train
    from dmnet_jax.training.cross_validation import is_finished

    if not is_finished(config):
        train.train(config, config.run_directory, stop)
    return not stop.requested
