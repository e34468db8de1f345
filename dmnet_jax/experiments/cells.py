"""Shared code of the experiments: divisions of videos, cells of a table, reports."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from data_pipelines.io.files import make_folder, write_text
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


def write_report(
    folder: Path, name: str, result: Mapping[str, Any], markdown: str, html: str
) -> None:
    """Writes `NAME.json`, `NAME.md` and `NAME.html`, and prints where they are.

    Undefined scores (NaN) are null in JSON.
    """
    from dmnet_jax.evaluation.results import write_json

    make_folder(folder)
    write_json(folder / f"{name}.json", result)
    write_text(folder / f"{name}.md", markdown + "\n")
    write_text(folder / f"{name}.html", html)
    print(f"\n{name}.json, {name}.md, {name}.html: {folder}")
