"""The number of labels that a network needs, by its initial weights."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmnet_jax.cli.arguments import exit_with_error, parse_command, program_name
from dmnet_jax.config import Config, ConfigError, StageConfig, validate
from dmnet_jax.datasets import open_dataset, split_names
from dmnet_jax.experiments.cells import Divisions, divisions, train_cell, write_report
from dmnet_jax.metrics import deviation, format_table, mean_known
from dmnet_jax.process import StopRequest
from dmnet_jax.report.charts import bars, document

HELP = """Compares initial weights when few frames are labeled.

    python -m dmnet_jax.experiments few-labels --config endovis15 --data.root DIR \\
        --divisions leave-one-out

Trains the recipe's single-frame network with every number of labels from every start,
for the same number of steps, with several seeds on every division of the videos into
training and validation videos. Writes few_labels.md, .json and .html. Run the same
command again to resume. For research use; not a medical device."""

_POINTS = 100.0


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to compare.

    Attributes:
        labels: Numbers of labeled training frames, spread evenly over the videos; 0:
            all that the recipe trains on.
        starts: Initial weights, values of model.pretrained. Gains are over the last.
        divisions: "recipe" (its own videos or fold), "folds" (all folds of the
            dataset), or "leave-one-out" (each video of data.train and data.val
            validates once).
        seeds: Number of seeds, from train.seed on.
        out: Folder of the runs and the table. Empty: WORKDIR/few_labels/NAME.
    """

    labels: tuple[int, ...] = (1, 5, 20, 0)
    starts: tuple[str, ...] = ("rendered", "imagenet")
    divisions: Divisions = "recipe"
    seeds: int = 3
    out: str = ""


class Cell(NamedTuple):
    """A cell of the table and the config of its run."""

    division: str
    start: str
    labels: int
    seed: int
    config: Config


def main(argv: Sequence[str] | None = None) -> int:
    config, flags = parse_command(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.experiments few-labels"),
        description=HELP,
    )
    folder = Path(flags.out or Path(config.workdir) / "few_labels" / config.name)
    scores: dict[Cell, float] = {}
    try:
        with StopRequest() as stop:
            for cell in plan(config, flags, folder):
                run = cell.config.run_directory
                print(f"\n{cell.division}, {cell.start}, {_title(cell.labels)}: {run}")
                if not train_cell(cell.config, stop):
                    return stop.exit_code
                scores[cell] = read_score(run)
        result = summary(scores)
        print("\n" + tables(result))
        write_report(folder, "few_labels", result, tables(result), page(result))
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def plan(config: Config, flags: Flags, folder: Path) -> Iterator[Cell]:
    """Yields the cells seed by seed, so that a stopped run completes whole seeds.

    Raises:
        ValueError: a flag is invalid, or the recipe does not have the divisions.
    """
    if flags.seeds < 1 or not flags.labels or not flags.starts:
        raise ConfigError("--seeds, --labels and --starts need at least one value")
    if min(flags.labels) < 0:
        raise ConfigError("--labels has a negative number; 0 means all labels")
    single = single_frame(config)
    all_divisions = []
    for name, data in divisions(single, flags.divisions):
        with_division = dataclasses.replace(single, data=data)
        available = count_targets(with_division, frame_step=1)
        if max(flags.labels) > available:
            raise ConfigError(
                f"--labels {max(flags.labels)}: the training videos have only "
                f"{available} labels"
            )
        targets = count_targets(with_division, data.frame_step)
        all_divisions.append((name, with_division, targets))
    for seed in range(config.train.seed, config.train.seed + flags.seeds):
        for division, recipe, targets in all_divisions:
            for labels in flags.labels:
                for start in flags.starts:
                    limited = with_labels(recipe, labels, targets)
                    cell = dataclasses.replace(
                        limited,
                        name=f"{Path(start).stem}-{labels or 'all'}",
                        model=dataclasses.replace(limited.model, pretrained=start),
                        train=dataclasses.replace(limited.train, seed=seed),
                        workdir=str(folder / division),
                    )
                    yield Cell(division, start, labels, seed, validate(cell))


def single_frame(config: Config) -> Config:
    """Returns the recipe's single-frame network, trained for its first stages.

    These are the stages of the single-frame network. A recipe without such a stage
    trains for the epochs of all its stages.
    """
    stages = config.resolved_stages
    first = [s for s in stages if s.train == "single_frame"] or stages
    epochs = sum(stage.epochs for stage in first)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, local="none", global_memory=False, state=False
        ),
        train=dataclasses.replace(
            config.train,
            stages=(StageConfig("single frame", epochs, train="single_frame"),),
            eval_every_epochs=epochs,
        ),
    )


def count_targets(config: Config, frame_step: int) -> int:
    """Returns the number of labels at every `frame_step`-th frame of a video."""
    data = config.data
    source = open_dataset(data, [*data.train, *data.val] or None)
    names, _ = split_names(data, source)
    return sum(
        frame % frame_step == 0 and frame not in video.unlabeled
        for video in source.videos
        if video.name in names
        for frame in range(len(video.frames))
    )


def with_labels(config: Config, labels: int, targets: int) -> Config:
    """Returns a single-frame recipe with fewer labels and the same number of steps.

    The number of steps is that of all labels, rounded up to whole epochs.

    Args:
        config: result of `single_frame`.
        labels: number of labels; 0: all.
        targets: see `count_targets`.
    """
    if not labels:
        return config
    batch, epochs = config.train.batch_size, config.train.stages[0].epochs
    steps = epochs * -(-targets // batch)
    more = -(-steps // -(-labels // batch))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_labels=labels, frame_step=1),
        optim=dataclasses.replace(
            config.optim,
            drop_epochs=tuple(
                round(epoch * more / epochs) for epoch in config.optim.drop_epochs
            ),
        ),
        train=dataclasses.replace(
            config.train,
            stages=(dataclasses.replace(config.train.stages[0], epochs=more),),
            eval_every_epochs=more,
        ),
    )


def read_score(run: Path) -> float:
    """Returns the mean IoU of a finished run, pixels of all videos pooled."""
    from dmnet_jax.evaluation.results_file import read_results

    return float(read_results(run / "results.json")["protocols"]["global"]["iou"])


def summary(scores: Mapping[Cell, float]) -> dict[str, Any]:
    """Computes means over divisions and seeds, and deviations over seeds.

    Returns:
        A JSON object with "divisions", "seeds", "labels", "starts"; "scores" and, in
        points over the last start, "gains": by start and number of labels, [mean,
        deviation]; and "cells", the score of each cell.
    """
    divisions, starts, labels, seeds = (
        list(dict.fromkeys(getattr(cell, name) for cell in scores))
        for name in ("division", "start", "labels", "seed")
    )
    table = {
        (start, count): np.full((len(seeds), len(divisions)), np.nan)
        for start in starts
        for count in labels
    }
    for cell, score in scores.items():
        where = seeds.index(cell.seed), divisions.index(cell.division)
        table[cell.start, cell.labels][where] = score

    def over_seeds(values: np.ndarray) -> list[float]:
        means = mean_known(values, axis=1)
        return [float(mean_known(means)), deviation(means)]

    return {
        "divisions": divisions,
        "seeds": seeds,
        "labels": labels,
        "starts": starts,
        "scores": {
            start: {str(n): over_seeds(table[start, n]) for n in labels}
            for start in starts
        },
        "gains": {
            start: {
                str(n): over_seeds(_POINTS * (table[start, n] - table[starts[-1], n]))
                for n in labels
            }
            for start in starts[:-1]
        },
        "cells": [
            {**cell._asdict(), "config": str(cell.config.run_directory), "iou": score}
            for cell, score in scores.items()
        ],
    }


def tables(result: Mapping[str, Any]) -> str:
    """Formats the result of `summary` as a Markdown table."""
    labels = [str(count) for count in result["labels"]]
    body = [
        [start, *(_cell(result["scores"][start][n], ".3f") for n in labels)]
        for start in result["starts"]
    ]
    body += [
        [
            f"{start} - {result['starts'][-1]}, points",
            *(_cell(gains[n], ".1f", "+") for n in labels),
        ]
        for start, gains in result["gains"].items()
    ]
    heads = [_title(count) for count in result["labels"]]
    num_seeds = len(result["seeds"])
    return (
        f"Mean IoU over {', '.join(result['divisions'])} and {num_seeds} "
        f"seed{'s' * (num_seeds != 1)}, pixels of a division pooled; ± is the "
        "deviation over seeds.\n\n" + format_table(body, ["start", *heads])
    )


def page(result: Mapping[str, Any]) -> str:
    """Formats the result of `summary` as a self-contained HTML document."""
    charts = []
    for count in result["labels"]:
        data = []
        for start in result["starts"]:
            mean, spread = result["scores"][start][str(count)]
            data.append((start, mean, (mean - spread, mean + spread)))
        charts.append(bars(data, title=f"{_title(count)}, mean IoU"))
    title = "Initial weights and the number of labels"
    text = f"<pre>{escape(tables(result))}</pre>"
    return document(title, f"<h1>{title}</h1>{''.join(charts)}{text}")


def _title(count: int) -> str:
    return "all labels" if count == 0 else f"{count} label{'s' * (count != 1)}"


def _cell(score: Sequence[float], digits: str, sign: str = "") -> str:
    mean, spread = score
    text = format(mean, sign + digits)
    return text if np.isnan(spread) else f"{text} ± {spread:{digits}}"
