"""All scores of one evaluation, as numbers and as tables."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.frames import ClassInfo
from dmnet_jax.evaluation.videos import Evaluation
from dmnet_jax.metrics import (
    PROTOCOLS,
    Score,
    bootstrap,
    bootstrap_interval,
    format_table,
    mean_known,
    per_class,
    summarize,
    ternaus_validation,
)

_NO_INTERVAL = float("nan"), float("nan")


def tables(evaluation: Evaluation, classes: Sequence[ClassInfo]) -> str:
    """Formats all scores of an evaluation as tables.

    They show IoU and Dice of each class by video and pooled, the mean by every
    protocol, surface distance and flicker, and the settings.
    """
    return tables_of(evaluation, measured(evaluation, [info.name for info in classes]))


def tables_of(evaluation: Evaluation, results: dict[str, Any]) -> str:
    """Like `tables`, from the result of `measured`."""
    names, scoring = results["classes"], evaluation.scoring
    parts = []
    titles: dict[Score, str] = {"iou": "IoU", "dice": "Dice"}
    for score, title in titles.items():
        rows, headers = per_class(
            evaluation.counts, evaluation.videos, names, protocol="global", score=score
        )
        parts.append(f"{title}, pixels pooled\n\n{format_table(rows, headers)}")

    rows = []
    for protocol, row in results["protocols"].items():
        cells = []
        for score in ("iou", "dice"):
            cells += [row[score], _interval(row["interval_95"][score])]
        rows.append([row["letter"], protocol, *cells, row["meaning"]])
    headers = ["", "protocol", "mIoU", "95 %", "mDice", "95 %", "definition, source"]
    parts.append(
        "The same predictions by every published protocol (95 %: bootstrap over videos)"
        "\n\n" + format_table(rows, headers)
    )

    surface, flicker = results["surface_distance"], results["flicker"]
    per_class_rows = [
        [
            name,
            *(video["per_class"][name] for video in surface["videos"].values()),
            surface["per_class"][name],
        ]
        for name in names[1:]
    ]
    rows = [
        *per_class_rows,
        ["mean", *(v["mean"] for v in surface["videos"].values()), surface["mean"]],
        ["flicker", *flicker["videos"].values(), flicker["share"]],
    ]
    parts.append(
        f"Normalized surface distance at {scoring.tolerance_px:g} px (95 %: "
        f"{_interval(surface['interval_95'])}) and flicker (95 %: "
        f"{_interval(flicker['interval_95'])})\n\n"
        + format_table(rows, ["class", *surface["videos"], "all videos"])
    )
    inflated = results["curiosities"]["ternaus_validation"]
    parts.append(
        f"A', {_number(inflated['iou'])}, not for reporting: {inflated['warning']}."
    )
    height, width = evaluation.size
    where = {"label": "labels' stored", "input": "network's input"}[scoring.score_at]
    parts.append(
        f"{len(evaluation.frames)} frames, scored at the {where} size "
        f"({height}x{width}), logits resized by {scoring.enlarge}; weights "
        f"{evaluation.weights_sha256[:12]}."
    )
    return "\n\n".join(parts)


def measured(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Computes all scores of an evaluation as JSON; NaN where undefined.

    Args:
        evaluation: the evaluation.
        names: names of the classes, background first.
    """
    counts, videos = evaluation.counts, evaluation.videos
    of_video = {str(v): np.flatnonzero(videos == v) for v in dict.fromkeys(videos)}
    protocols = {}
    for protocol, text in PROTOCOLS.items():
        letter, _, meaning = text.partition(": ")
        protocols[protocol] = {
            "letter": letter,
            "meaning": meaning,
            **_plain(_supported(counts, protocol), names),
            "interval_95": bootstrap(counts, videos, protocol=protocol, seed=0)
            if is_scored(counts)
            else {"iou": _NO_INTERVAL, "dice": _NO_INTERVAL},
            "videos": {
                video: _plain(_supported(counts[frames], protocol), names)
                for video, frames in of_video.items()
            },
        }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inflated = _plain(ternaus_validation(evaluation.confusion), names)
    if not is_scored(counts):
        inflated = _plain(_nothing(len(names)), names)
    inflated["warning"] = str(caught[0].message)

    def surface(frames: Any) -> dict[str, Any]:
        known = mean_known(evaluation.surface[frames], axis=0)[1:]
        known = known if is_scored(counts[frames]) else np.full_like(known, np.nan)
        per_class = dict(zip(names[1:], known.tolist(), strict=True))
        return {"mean": float(mean_known(known)), "per_class": per_class}

    def flicker(frames: Any) -> float:
        changed, counted = evaluation.flicker[frames].sum(0)
        known = counted and is_scored(counts[frames])
        return float(changed / counted) if known else float("nan")

    everything = np.arange(len(videos))
    borders, steadiness = bootstrap_interval(
        lambda frames: (surface(frames)["mean"], flicker(frames)), videos, seed=0
    )
    return {
        "classes": list(names),
        "frames": len(videos),
        "scoring": evaluation.scoring._asdict(),
        "size": list(evaluation.size),
        "weights_sha256": evaluation.weights_sha256,
        "protocols": protocols,
        "surface_distance": {
            "meaning": "share of both borders within tolerance_px of the other; mean "
            "over frames with the class in label or prediction, then over classes",
            "tolerance_px": evaluation.scoring.tolerance_px,
            **surface(everything),
            "interval_95": borders,
            "videos": {video: surface(frames) for video, frames in of_video.items()},
        },
        "flicker": {
            "meaning": "share of pixels whose prediction changes from frame to frame "
            "although the label does not, where label or prediction is foreground",
            "share": flicker(everything),
            "interval_95": steadiness,
            "videos": {video: flicker(frames) for video, frames in of_video.items()},
        },
        "curiosities": {"ternaus_validation": inflated},
        "admitted": float(evaluation.admitted.mean()),
        "thresholds": dict(evaluation.thresholds),
        "confusion": evaluation.confusion.tolist(),
    }


def is_scored(counts: np.ndarray) -> bool:
    """Returns whether any frame has a labeled foreground class.

    Frames without foreground count if others have foreground, and some protocols score
    them 1. If no frame has foreground, there is no score.

    Args:
        counts: int [frames, num_classes, 3], rows from `metrics.frame_counts`.
    """
    return bool(counts[:, 1:, 2].any())


def _supported(counts: np.ndarray, protocol: str) -> dict[str, Any]:
    """Like `summarize`, but all NaN if no foreground class is labeled."""
    if is_scored(counts):
        return summarize(counts, protocol=protocol)
    return _nothing(counts.shape[1])


def _nothing(num_classes: int) -> dict[str, Any]:
    unknown = np.full(num_classes, np.nan)
    return {
        "iou": float("nan"),
        "dice": float("nan"),
        "iou_per_class": unknown,
        "dice_per_class": unknown,
    }


def _plain(summary: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        "iou": summary["iou"],
        "dice": summary["dice"],
        **{
            score: dict(zip(names[1:], map(float, summary[score][1:]), strict=True))
            for score in ("iou_per_class", "dice_per_class")
        },
    }


def _number(score: float) -> str:
    return "n/a" if np.isnan(score) else f"{score:.4f}"


def _interval(ends: tuple[float, float]) -> str:
    return "n/a" if np.isnan(ends[0]) else f"{ends[0]:.3f}..{ends[1]:.3f}"
