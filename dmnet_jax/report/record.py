"""What a run directory holds, read for a report; what is missing stays empty."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Record:
    """A run and its evaluation.

    Attributes:
        run: its directory.
        evaluated: the directory whose results are reported.
        config: of the run.
        metrics: the lines of metrics.jsonl.
        results: results.json.
        videos: [frames], the video of each scored frame.
        counts: int64 [frames, num_classes, 3], as `metrics.frame_counts` has them.
        timeline: for each video: (names of frames, r, s, admitted), float [n].
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


def read_run(run: Path) -> Record:
    """Reads a run directory.

    Raises:
        ValueError: it holds no run, none that was evaluated, or a damaged file.
    """
    if not (run / "config.json").is_file():
        raise ValueError(f"{run}: holds no config.json; name a run directory")
    evaluated = run / "evaluation"
    if not (evaluated / "results.json").is_file():
        evaluated = run
    if not (evaluated / "results.json").is_file():
        raise ValueError(
            f"{run}: has no results yet; python evaluate.py --checkpoint {run}"
        )
    results = _json(evaluated / "results.json")
    try:
        videos, counts = _counts(evaluated / "frames.csv", results["classes"])
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{evaluated / 'frames.csv'}: {error}") from error
    picked = evaluated / "overlays" / "picked.json"
    return Record(
        run=run,
        evaluated=evaluated,
        config=_json(run / "config.json"),
        metrics=_metrics(run / "metrics.jsonl"),
        results=results,
        videos=videos,
        counts=counts,
        timeline=_timeline(evaluated / "overlays" / "timeline.csv"),
        picked=_json(picked) if picked.is_file() else {},
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); evaluate again") from error


def _metrics(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: a line is no record ({error})") from error


def _counts(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    fields = ("intersection", "predicted", "labelled")
    flat = np.array([[int(row[field]) for field in fields] for row in rows])
    counts = flat.reshape(-1, len(names), 3)
    return np.array([row["video"] for row in rows[:: len(names)]]), counts


def _timeline(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    by_video: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            by_video.setdefault(row["video"], []).append(row)
    columns = ("confidence", "similarity", "admitted")
    return {
        video: (
            [row["frame"] for row in rows],
            *(np.array([float(row[column]) for row in rows]) for column in columns),
        )
        for video, rows in by_video.items()
    }
