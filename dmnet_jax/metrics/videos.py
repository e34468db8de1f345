"""Scores by video and class, confidence intervals, and tables."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet_jax.metrics.protocols import checked_counts, summarize

Score = Literal["iou", "dice"]


def per_video(
    counts: ArrayLike, videos: ArrayLike, *, protocol: str, **options: Any
) -> dict[Any, dict[str, Any]]:
    """Calls `summarize` for the frames of each video.

    To score folds, pass the fold of each frame as `videos`.

    Args:
        counts: int [frames, num_classes, 3], rows from `frame_counts`.
        videos: [frames], the name or number of each frame's video.
        protocol: a key of `PROTOCOLS`.
        **options: arguments of `summarize`.

    Returns:
        A summary for each video, in order of appearance.

    Raises:
        ValueError: the lengths differ, or see `summarize`.
    """
    table, names, index = _grouped(counts, videos)
    return {
        name: summarize(table[index == i], protocol=protocol, **options)
        for i, name in enumerate(names)
    }


def per_class(
    counts: ArrayLike,
    videos: ArrayLike,
    class_names: Sequence[str],
    *,
    protocol: str,
    score: Score = "iou",
    **options: Any,
) -> tuple[list[list[Any]], list[str]]:
    """Builds a table of one score: a row for each foreground class and the mean.

    Args:
        counts: int [frames, num_classes, 3], rows from `frame_counts`.
        videos: [frames], the name or number of each frame's video.
        class_names: num_classes names, background first.
        protocol: a key of `PROTOCOLS`.
        score: "iou" or "dice".
        **options: arguments of `summarize`.

    Returns:
        Rows and headers for `format_table`: the class, a column for each video, and a
        column for all frames pooled.

    Raises:
        ValueError: the lengths differ, or see `summarize`.
    """
    table = checked_counts(counts)
    if len(class_names) != table.shape[1]:
        raise ValueError(f"{len(class_names)} names for {table.shape[1]} classes")
    by_video = per_video(table, videos, protocol=protocol, **options)
    columns = [*by_video.values(), summarize(table, protocol=protocol, **options)]
    rows: list[list[Any]] = [
        [name, *(float(column[f"{score}_per_class"][i]) for column in columns)]
        for i, name in enumerate(class_names)
        if i > 0
    ]
    rows.append(["mean", *(column[score] for column in columns)])
    return rows, ["class", *map(str, by_video), "all videos"]


def bootstrap(
    counts: ArrayLike,
    videos: ArrayLike,
    *,
    protocol: str,
    seed: int,
    repeats: int = 1000,
    confidence: float = 0.95,
    **options: Any,
) -> dict[str, tuple[float, float]]:
    """Confidence intervals from resampling whole videos (percentile bootstrap).

    Frames of a video are correlated, so resampling frames would give intervals that are
    far too narrow. With few videos, the intervals are rough.

    Args:
        counts: int [frames, num_classes, 3], rows from `frame_counts`.
        videos: [frames], the name or number of each frame's video.
        protocol: a key of `PROTOCOLS`.
        seed: seed of the resampling; the same seed gives the same interval.
        repeats: number of resamples. Resamples in which a score is undefined are
            excluded from its interval.
        confidence: nominal coverage, in (0, 1).
        **options: arguments of `summarize`.

    Returns:
        (low, high) for "iou" and "dice"; NaN with fewer than two videos.

    Raises:
        ValueError: the lengths differ, `repeats` < 1, `confidence` is outside (0, 1),
            or see `summarize`.
    """
    table = checked_counts(counts)

    def score(frames: NDArray) -> tuple[float, float]:
        summary = summarize(table[frames], protocol=protocol, **options)
        return summary["iou"], summary["dice"]

    _grouped(table, videos)  # one video for each frame of the table
    iou, dice = bootstrap_interval(
        score, videos, seed=seed, repeats=repeats, confidence=confidence
    )
    return {"iou": iou, "dice": dice}


def bootstrap_interval(
    score: Callable[[NDArray], Sequence[float]],
    videos: ArrayLike,
    *,
    seed: int,
    repeats: int = 1000,
    confidence: float = 0.95,
) -> list[tuple[float, float]]:
    """Like `bootstrap`, for arbitrary scores.

    Args:
        score: function from frame indices [n], which may repeat, to a fixed number of
            scores, NaN where undefined.
        videos: [frames], the name or number of each frame's video.
        seed: seed of the resampling.
        repeats: number of resamples.
        confidence: nominal coverage, in (0, 1).

    Returns:
        (low, high) for each score; NaN with fewer than two videos.

    Raises:
        ValueError: `repeats` < 1 or `confidence` is outside (0, 1).
    """
    if repeats < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"repeats must be >= 1 and confidence in (0, 1), not {repeats} and "
            f"{confidence}"
        )
    of_frame = np.asarray(videos)
    names = list(dict.fromkeys(of_frame.tolist()))
    if len(names) < 2:
        count = len(score(np.arange(len(of_frame))))
        return [(float("nan"), float("nan"))] * count
    frames = [np.flatnonzero(of_frame == name) for name in names]
    generator = np.random.default_rng(seed)
    draws = np.sort(generator.integers(len(names), size=(repeats, len(names))))
    # Few videos have few distinct resamples: 3 for two videos, 35 for four.
    different, which = np.unique(draws, axis=0, return_inverse=True)
    scores = np.array(
        [score(np.concatenate([frames[i] for i in drawn])) for drawn in different]
    )
    return [_interval(column, confidence) for column in scores[which.ravel()].T]


def format_table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """Formats a Markdown table that is also aligned as plain text.

    Args:
        rows: cells. Floats are printed with four decimals and NaN as "n/a", everything
            else with `str`.
        headers: one per column. Columns of numbers are right-aligned.

    Returns:
        Lines without a trailing newline.

    Raises:
        ValueError: the length of a row differs from the number of headers.
    """
    for i, row in enumerate(rows):
        if len(row) != len(headers):
            raise ValueError(f"row {i} has {len(row)} cells; expected {len(headers)}")
    cells = [[_cell(value) for value in row] for row in (headers, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [
        all(isinstance(row[i], (int, float, np.number)) for row in rows) and bool(rows)
        for i in range(len(headers))
    ]
    lines = [
        " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        for row in cells
    ]
    rule = " | ".join(
        "-" * (width - 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:]))


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "n/a" if np.isnan(value) else f"{value:.4f}"
    return str(value).replace("|", "\\|")


def _interval(scores: NDArray, confidence: float) -> tuple[float, float]:
    known = scores[~np.isnan(scores)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _grouped(
    counts: ArrayLike, videos: ArrayLike
) -> tuple[NDArray, list[Any], NDArray]:
    """Returns the table, the distinct videos in order, and each frame's video index."""
    table = checked_counts(counts)
    of_frame = np.asarray(videos)
    if of_frame.shape != table.shape[:1]:
        raise ValueError(
            f"videos {of_frame.shape} do not match counts {table.shape}: pass one "
            "video per frame"
        )
    names = list(dict.fromkeys(of_frame.tolist()))
    position = {name: i for i, name in enumerate(names)}
    index = np.array([position[name] for name in of_frame.tolist()], np.intp)
    return table, names, index
