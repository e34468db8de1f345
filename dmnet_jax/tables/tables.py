"""Builds tables from runs: trains missing runs, reads scores, counts and writes."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.io.files import replaced, write_text
from dmnet_jax.config import Config, to_json
from dmnet_jax.evaluation.results_file import read_results
from dmnet_jax.process import StopRequest
from dmnet_jax.tables.rows import Row, parts
from dmnet_jax.training.cross_validation import (
    SeriesFlags,
    average,
    finished,
    planned,
)

TRAIN = ("-m", "dmnet_jax.cli.train")

# Columns that are also in the paper: our title and key, the paper's title and key.
BESIDE = (
    ("mDice %", "mdice", "paper's mDice", "paper_mdice"),
    ("mIoU %", "miou", "paper's mIoU", "paper_miou"),
    ("M parameters", "parameters_M", "paper's M", "paper_parameters_M"),
    ("G as the paper counts", "paper_rule_G", "paper's G", "paper_operations_G"),
    ("ms", "ms", "paper's ms", "paper_ms"),
    ("FPS", "fps", "paper's FPS", "paper_fps"),
)
OURS = (
    ("encoder", "encoder"),
    ("± folds", "mdice_deviation_over_folds"),
    ("G multiply-adds", "multiply_adds_G"),
    ("p50 ms", "p50_ms"),
    ("p95 ms", "p95_ms"),
    ("p99 ms", "p99_ms"),
    ("runs", "runs"),
)


def train_row(config: Config, row: Row, flags: SeriesFlags, folder: Path) -> int:
    """Trains the missing runs of a row, each in its own process.

    Args:
        config: config of the row's cell.
        row: the row.
        flags: folds and seeds.
        folder: folder for the recipes of the runs.

    Returns:
        0, or the exit status of the first training that did not finish.
    """
    runs = [part for run in planned(config, flags) for part in parts(run, row)]
    for run in runs:
        if finished(run):
            continue
        recipe = folder / f"{run.name}.json"
        write_text(recipe, to_json(run) + "\n")
        print(f"{row.method}: {run.run_directory}", flush=True)
        status = train_process(recipe)
        if status or not finished(run):  # 0 without results: stopped on request
            return status or 143
    return 0


def train_process(recipe: Path) -> int:
    """Trains a recipe in a subprocess; a stop request is forwarded once.

    Returns:
        The exit status of the training.
    """
    with StopRequest() as stop:
        # In its own session; otherwise Ctrl-C would reach it twice.
        command = [sys.executable, *TRAIN, "--config", recipe]
        process = subprocess.Popen(command, start_new_session=True)
        forwarded = False
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if stop.requested and not forwarded:
                    process.terminate()
                    forwarded = True


def scores_of(config: Config, row: Row, flags: SeriesFlags) -> dict[str, Any]:
    """Returns a cell's scores in percent by protocol C (DMNet's code), and all others.

    Scores are averaged over the finished runs. Empty if they do not form a complete set
    of folds and seeds.
    """
    planned_runs = [parts(run, row)[-1] for run in planned(config, flags)]
    runs = [run for run in planned_runs if finished(run)]
    files = [run.run_directory / "results.json" for run in runs]
    read = [read_results(file, to_average=True) for file in files]
    try:
        found = average(read) if read else None
    except ValueError:
        found = None
    if found is None:
        return {}
    by_c = found["protocols"]["dmnet"]
    return {
        "mdice": 100 * by_c["dice"]["mean"],
        "miou": 100 * by_c["iou"]["mean"],
        "mdice_deviation_over_folds": 100 * by_c["dice"]["deviation_over_folds"],
        "runs": len(read),
        "protocols": {
            name: {score: 100 * scores[score]["mean"] for score in ("iou", "dice")}
            for name, scores in found["protocols"].items()
        },
    }


def costs_of(network: Any, size: tuple[int, int]) -> dict[str, float]:
    """Returns the number of parameters, and multiply-adds per frame."""
    from dmnet_jax import complexity

    return {
        "parameters_M": complexity.parameters(network) / 1e6,
        "multiply_adds_G": complexity.step_complexity(network, size).multiply_adds
        / 1e9,
        "paper_rule_G": complexity.paper_operations(network, size) / 1e9,
    }


def printed(row: Row, dataset: str) -> dict[str, float | None]:
    """Returns the published numbers of a row, with scores of the dataset if known."""
    dice, iou = row.scores.get(dataset, (None, None))
    return {
        "paper_mdice": dice,
        "paper_miou": iou,
        "paper_parameters_M": row.parameters,
        "paper_operations_G": row.operations,
        "paper_ms": row.milliseconds,
        "paper_fps": row.fps,
    }


def write_table(
    folder: Path, name: str, rows: Sequence[dict[str, Any]], about: dict[str, Any]
) -> str:
    """Writes NAME.md, NAME.csv and NAME.json; cells without a measurement are empty.

    Returns:
        The Markdown text.
    """
    from dmnet_jax.evaluation.results import write_json
    from dmnet_jax.metrics import format_table

    rows = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    write_json(folder / f"{name}.json", {"about": about, "rows": rows})
    names = ["method"]
    names += [key for _, ours, _, paper in BESIDE for key in (ours, paper)]
    names += [key for _, key in OURS]
    with (
        replaced(folder / f"{name}.csv") as fresh,
        fresh.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, names, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)

    headers, cells = ["method"], [[row["method"]] for row in rows]
    for title, ours, paper_title, paper in BESIDE:
        headers += [title, paper_title]
        for line, row in zip(cells, rows, strict=True):
            line += [_cell(row.get(ours)), _cell(row.get(paper))]
    for title, key in OURS:
        headers.append(title)
        for line, row in zip(cells, rows, strict=True):
            line.append(_cell(row.get(key)))
    kept = [i for i in range(len(headers)) if any(line[i] for line in cells)]
    table = format_table(
        [[line[i] for i in kept] for line in cells], [headers[i] for i in kept]
    )
    text = f"{table}\n\n{_notes(about)}\n"
    write_text(folder / f"{name}.md", text)
    return text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _notes(about: dict[str, Any]) -> str:
    height, width = about["size"]
    return (
        f"{about['dataset']}, {height}x{width}, folds {about['folds']}, "
        f"{about['repeat']} seed(s), {about['budget']}; {about['date']}, "
        f"{about['hardware']}.\n"
        "mDice and mIoU by protocol C, that of DMNet's code, over whole videos with "
        "past frames only; other protocols are in the JSON. G multiply-adds: for one "
        "frame of a stream, including attention. G as the paper counts: transposed "
        "convolutions at their output's size, batch norm, no attention; for DMNet see "
        "dmnet_jax.complexity. ms: mean of the compiled step, one stream, with all "
        "networks measured in turn. The paper's scores use its own data split and "
        "evaluation, its times a TITAN RTX."
    )
