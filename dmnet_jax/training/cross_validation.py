"""Runs of one recipe over its folds or several seeds, and their average scores."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.io.files import make_folder, write_text
from data_pipelines.sources import DATASETS
from dmnet_jax.checkpoint.compatibility import check_resume
from dmnet_jax.config import Config, from_json
from dmnet_jax.config.serialization import ConfigError
from dmnet_jax.evaluation.results_file import ResultsError, read_results
from dmnet_jax.metrics import deviation, format_table, mean_known

Fold = int | Literal["all"] | None


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Flags that select the runs of a recipe.

    Attributes:
        fold: Fold that validates, instead of data.fold; "all" for one run per fold.
        repeat: Number of runs per fold, with seeds from train.seed on.
    """

    fold: Fold = None
    repeat: int = 1


def plan_runs(config: Config, flags: RunFlags) -> list[Config]:
    """Returns one config per run that the flags select, seed by seed.

    Raises:
        ValueError: the fold does not exist, the recipe has no folds, or `repeat` is
            below 1.
    """
    if flags.repeat < 1:
        raise ValueError(f"--repeat is {flags.repeat}; it must be at least 1")
    seeds = range(config.train.seed, config.train.seed + flags.repeat)
    return [
        dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, fold=fold),
            train=dataclasses.replace(config.train, seed=seed),
        )
        for seed in seeds
        for fold in select_folds(config, flags.fold)
    ]


def select_folds(config: Config, fold: Fold) -> list[int]:
    """Returns the selected folds.

    Args:
        config: a recipe.
        fold: a fold, "all" for every fold of the dataset, or None for the config's.

    Raises:
        ValueError: the fold does not exist, or the recipe has no folds.
    """
    if fold is None:
        return [config.data.fold]
    count = DATASETS[config.data.dataset].folds
    if not count:
        raise ValueError(f"--fold {fold}: {config.data.dataset} has no folds")
    if config.data.train and config.data.val:
        raise ValueError(
            f"--fold {fold}: the recipe names its videos (data.train, data.val), so "
            "it has no folds"
        )
    if fold == "all":
        return list(range(count))
    if fold not in range(count):
        raise ValueError(f"--fold {fold}: folds are 0 to {count - 1}, or all")
    return [fold]


def is_finished(config: Config) -> bool:
    """Returns whether the run directory holds the results of this config.

    Raises:
        ConfigError: the directory holds the results of a different recipe.
    """
    try:
        results = json.loads((config.run_directory / "results.json").read_bytes())
        saved = from_json(json.dumps(results["about"]["config"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    check_resume(saved, config)
    return saved.train.epochs == config.train.epochs


def write_average(folder: Path, runs: Sequence[Path]) -> str:
    """Writes `summary.json` and `summary.md`, the average results of several runs.

    Args:
        folder: folder to write to; created if missing.
        runs: run directories, each with a `results.json`.

    Returns:
        The tables, as Markdown.

    Raises:
        ValueError: results are missing, damaged, or rejected by `average`.
    """
    # Imported here, so that --help is fast.
    from dmnet_jax.evaluation.results import write_json

    summary = average(_read_results(runs))
    text = average_tables(summary)
    make_folder(folder)
    write_json(folder / "summary.json", summary)
    write_text(folder / "summary.md", text + "\n")
    return text


def _read_results(folders: Sequence[Path]) -> list[dict[str, Any]]:
    results = []
    for folder in folders:
        path = folder / "results.json"
        try:
            results.append(read_results(path, to_average=True))
        except ResultsError as error:
            raise ConfigError(f"{path}: cannot be read ({error.reason})") from error
    return results


def average(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Computes the mean and deviation of every score over folds and seeds.

    All runs have equal weight, as in published averages over folds. A score that is
    undefined in a run (null) is left out of the means. Deviations are sample
    deviations (n - 1): over folds, of each fold's mean over seeds; over seeds, of each
    seed's mean over folds. The paper repeats its folds with five seeds.

    Args:
        results: contents of each run's `results.json`.

    Returns:
        A JSON object with "runs"; for each protocol "letter", "meaning", and scores
        "iou", "dice", "iou_per_class" and "dice_per_class" (by class); scores
        "surface_distance", with its tolerance, and "flicker". Each score is {"folds":
        mean of each fold, "seeds": mean of each seed, "mean", "deviation_over_folds",
        "deviation_over_seeds"}, NaN where undefined.

    Raises:
        ValueError: the runs have different scoring rules or classes, or there is not
            exactly one run per fold and seed.
    """
    rules = [
        (run["scoring"], run["classes"], sorted(run["protocols"])) for run in results
    ]
    for rule in rules:
        for first, other in zip(rules[0], rule, strict=True):
            if first != other:
                raise ValueError(
                    f"runs with different scoring cannot be averaged: {first} and "
                    f"{other}"
                )
    keys = [_fold_and_seed(run) for run in results]
    all_folds, seeds = (
        list(dict.fromkeys(column)) for column in zip(*keys, strict=True)
    )
    if len(set(keys)) != len(keys) or len(keys) != len(all_folds) * len(seeds):
        raise ValueError(
            f"runs have (fold, seed) {keys}; expected one run per fold and seed"
        )

    def over_runs(*path: str) -> dict[str, Any]:
        table = np.full((len(seeds), len(all_folds)), np.nan)
        for run, (fold, seed) in zip(results, keys, strict=True):
            value: Any = run
            for name in path:
                value = value[name]
            cell = seeds.index(seed), all_folds.index(fold)
            table[cell] = np.nan if value is None else value
        fold_means = mean_known(table, axis=0)
        seed_means = mean_known(table, axis=1)
        return {
            "folds": fold_means.tolist(),
            "seeds": seed_means.tolist(),
            "mean": float(mean_known(table)),
            "deviation_over_folds": deviation(fold_means),
            "deviation_over_seeds": deviation(seed_means),
        }

    names = results[0]["classes"][1:]
    protocols = {}
    for protocol, first in results[0]["protocols"].items():
        protocols[protocol] = {
            "letter": first["letter"],
            "meaning": first["meaning"],
            "iou": over_runs("protocols", protocol, "iou"),
            "dice": over_runs("protocols", protocol, "dice"),
            **{
                score: {
                    name: over_runs("protocols", protocol, score, name)
                    for name in names
                }
                for score in ("iou_per_class", "dice_per_class")
            },
        }
    return {
        "folds": all_folds,
        "seeds": seeds,
        "runs": [
            {
                "fold": fold,
                "seed": seed,
                "split_sha256": run["split_sha256"],
                "weights_sha256": run["weights_sha256"],
                "frames": run["frames"],
            }
            for run, (fold, seed) in zip(results, keys, strict=True)
        ],
        "classes": results[0]["classes"],
        "scoring": results[0]["scoring"],
        "versions": results[0]["versions"],
        "protocols": protocols,
        "surface_distance": {
            "tolerance_px": results[0]["surface_distance"]["tolerance_px"],
            **over_runs("surface_distance", "mean"),
        },
        "flicker": over_runs("flicker", "share"),
    }


def average_tables(summary: dict[str, Any]) -> str:
    """Formats the result of `average` as Markdown tables."""
    several = {kind: len(summary[kind]) > 1 for kind in ("folds", "seeds")}
    columns = "folds" if several["folds"] else "seeds"
    headers = [
        *(f"{columns[:-1]} {number}" for number in summary[columns]),
        "mean",
        *(f"± {kind}" for kind, shown in several.items() if shown),
    ]

    def cells(scores: dict[str, Any]) -> list[float]:
        spread = [scores[f"deviation_over_{k}"] for k, on in several.items() if on]
        return [*scores[columns], scores["mean"], *spread]

    parts = [
        f"Mean of {len(summary['runs'])} runs: folds "
        f"{', '.join(map(str, summary['folds']))}; seeds "
        f"{', '.join(map(str, summary['seeds']))}. ± is the sample deviation."
    ]
    for score, title in (("iou", "mIoU"), ("dice", "mDice")):
        rows = [
            [scores["letter"], protocol, *cells(scores[score]), scores["meaning"]]
            for protocol, scores in summary["protocols"].items()
        ]
        table = format_table(rows, ["", "protocol", *headers, "definition, source"])
        parts.append(f"{title} by every published protocol\n\n{table}")
    pooled = summary["protocols"]["global"]
    rows = [
        [name, *cells(pooled["iou_per_class"][name])] for name in summary["classes"][1:]
    ]
    table = format_table(rows, ["class", *headers])
    parts.append(f"IoU of each class, pixels of a fold pooled\n\n{table}")
    surface = summary["surface_distance"]
    rows = [
        [f"surface distance, {surface['tolerance_px']:g} px", *cells(surface)],
        ["flicker", *cells(summary["flicker"])],
    ]
    table = format_table(rows, ["", *headers])
    parts.append(f"Surface distance and flicker\n\n{table}")
    return "\n\n".join(parts)


def _fold_and_seed(run: dict[str, Any]) -> tuple[int, int]:
    config = run["about"]["config"]
    return config["data"]["fold"], config["train"]["seed"]
