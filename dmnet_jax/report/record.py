"""Reads a run directory for a report; missing optional files give empty fields."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io.files import check_not_special
from data_pipelines.io.names import printable, text_fault
from dmnet_jax.evaluation.results_file import (
    ANY,
    NUMBER,
    SCORE,
    TEXT,
    ResultsError,
    check,
    read_json,
    read_results,
)
from dmnet_jax.metrics.protocols import checked_counts


@dataclass(frozen=True)
class Record:
    """A run and its evaluation.

    Attributes:
        run: the run directory.
        evaluated: the directory whose results are reported.
        config: the config of the run.
        metrics: the lines of metrics.jsonl.
        results: the content of results.json.
        videos: [frames], the video of each scored frame.
        counts: int64 [frames, num_classes, 3], rows from `metrics.frame_counts`.
        timeline: (names of frames, r, s, admitted) for each video, the last three
            float [n].
        picked: best, median and worst frame, from picked.json.
    """

    run: Path
    evaluated: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    results: dict[str, Any]
    videos: np.ndarray
    counts: np.ndarray
    timeline: dict[str, tuple[list[str], np.ndarray, np.ndarray, np.ndarray]]
    picked: dict[str, dict[str, Any]]


PICKED = ("best", "median", "worst")
"""Names of the frames shown on a page; their images are `overlays/NAME.png`."""

_CONFIG = {"name": ANY, "data": {"dataset": TEXT}}
_PICKED = {"video": TEXT, "frame": TEXT, "iou": SCORE}
# Fields of metrics.jsonl that are shown.
_CURVES = ("loss", "batch_iou", "grad_norm", "val_iou")

# Exceptions that reading an edited CSV file can raise.
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, OverflowError, csv.Error)


def read_run(run: Path) -> Record:
    """Reads a run directory.

    Raises:
        ValueError: the directory has no run, the run was not evaluated, or a file is
            damaged.
    """
    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: contains no config.json; pass a run directory")
    evaluated = run / "evaluation"
    if not (evaluated / "results.json").is_file():
        evaluated = run
    if not (evaluated / "results.json").is_file():
        raise ValueError(
            f"{run}: has no results yet; run python evaluate.py --checkpoint {run}"
        )
    results = read_results(evaluated / "results.json")
    file = evaluated / "frames.csv"
    with _naming(file):
        videos, counts = _counts(file, results["classes"])
    file = run / "config.json"
    config = read_json(file)
    with _naming(file):
        check(config, _CONFIG, "")
        if not isinstance(config["name"], str):
            raise ValueError("name must be text")
    file = run / "metrics.jsonl"
    with _naming(file):
        metrics = _metrics(file)
    file = evaluated / "overlays" / "timeline.csv"
    with _naming(file):
        timeline = _timeline(file)
    return Record(
        run=run,
        evaluated=evaluated,
        config=config,
        metrics=metrics,
        results=results,
        videos=videos,
        counts=counts,
        timeline=timeline,
        picked=_picked(run, evaluated / "overlays"),
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Converts errors from reading an edited file to a `ResultsError` with its path."""
    try:
        yield
    except _UNREADABLE as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        what = printable(" ".join(what.split()))
        raise ResultsError(
            path, f"damaged or edited ({what}); evaluate again"
        ) from error


def _metrics(path: Path) -> list[dict[str, Any]]:
    check_not_special(path)
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            check(line, {"step": NUMBER}, "")
            if not isinstance(line["step"], int):
                raise ValueError("step must be a whole number")
            for field in _CURVES:
                check(line.get(field), SCORE, field)
            check(line.get("stage", "-"), TEXT, "stage")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        lines.append(line)
    return lines


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads a CSV file; checks that all rows have a cell in each of `columns`."""
    check_not_special(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        rows = list(reader)
    for row in rows:
        for name in columns:
            if not isinstance(row[name], str):
                raise ValueError(f"a row ends before column {name}")
        for name in ("video", "frame"):
            if fault := text_fault(row[name]):
                raise ValueError(f"a {name}'s name {fault}")
    return rows


def _counts(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    fields = ("intersection", "predicted", "labelled")
    rows = _rows(path, ("video", "frame", "class", *fields))
    if not rows or len(rows) % len(names):
        raise ValueError(f"{len(rows)} rows; expected one per frame and class")
    for i, row in enumerate(rows):
        first = rows[i - i % len(names)]
        same = (row["video"], row["frame"]) == (first["video"], first["frame"])
        if not same or row["class"] != names[i % len(names)]:
            raise ValueError(f"row {i + 1} is not for the expected frame and class")
    flat = np.array([[int(row[field]) for field in fields] for row in rows])
    counts = checked_counts(flat.reshape(-1, len(names), 3))
    return np.array([row["video"] for row in rows[:: len(names)]]), counts


def _timeline(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    columns = ("confidence", "similarity", "admitted")
    by_video: dict[str, list[dict[str, str]]] = {}
    for row in _rows(path, ("video", "frame", *columns)):
        by_video.setdefault(row["video"], []).append(row)
    return {
        video: (
            [row["frame"] for row in rows],
            *(np.array([_finite(row[column]) for row in rows]) for column in columns),
        )
        for video, rows in by_video.items()
    }


def _finite(text: str) -> float:
    """Parses a number; values that cannot be drawn, such as -inf, become NaN."""
    value = float(text)
    return value if abs(value) < 1e30 else math.nan


def _picked(run: Path, overlays: Path) -> dict[str, dict[str, Any]]:
    """Reads which frames to show; only images inside the run directory are allowed.

    A run directory from someone else must not be able to embed other files of this
    machine into the page.
    """
    file = overlays / "picked.json"
    if not file.is_file():
        return {}
    picked = read_json(file)
    with _naming(file):
        check(picked, {}, "")
        strange = [name for name in picked if name not in PICKED]
        if strange:
            raise ValueError(
                f"unknown name {strange[0]!r}; expected {', '.join(PICKED)}"
            )
        for name, about in picked.items():
            check(about, _PICKED, name)
            place = (overlays / f"{name}.png").resolve()
            if place.exists() and not place.is_relative_to(run.resolve()):
                raise ValueError(f"{name}.png is a link to a file outside the run")
    return picked
