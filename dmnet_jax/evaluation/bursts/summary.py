"""What the burst benchmark found: scores by kind, severity and place in the burst."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.corruption import KINDS, SEVERITIES, TRAINED, UNSEEN
from dmnet_jax.evaluation.bursts.averages import FAMILIES
from dmnet_jax.evaluation.bursts.benchmark import Scored
from dmnet_jax.metrics import mean_known, summarize

POSITIONS = {"1": (1, 1), "2-3": (2, 3), "4-6": (4, 6), "7-12": (7, 12)}
"""Frames of a burst that are scored together, by their names."""
RECOVERED = 0.02
"""A frame has recovered within this of the clean video's IoU."""


def summarized(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Scores of each row, the network's first; all IoU are 0..1, null if undefined.

    Every IoU is the mean over foreground classes of pixels pooled over frames. Of each
    family of averages the one that is best on corrupted frames also stands under the
    family's name, with its own as "best".

    Returns:
        For each row: "corrupted", "trained_kinds", "unseen_kinds"; "corrupted_if_clean"
        (the same frames in the row's run over the clean video: what there is to gain),
        "clean_between" (clean frames after a video's first burst) and
        "clean_between_if_clean" (the same frames in the clean run); "clean_video";
        "by_kind", "by_severity", "by_position"; "recovery_frames" (clean frames after
        a burst that are worse than in the clean run by more than 2 points, until the
        first that is not; the mean over bursts) and "bursts_not_recovered" (before the
        next burst or the end, counted with all their frames); "frames" (how many were
        corrupted). Rows with a wrong memory have scores of corrupted frames alone.
    """
    rows: dict[str, list[Scored]] = {}
    for one in scored:
        rows.setdefault(one.row, []).append(one)
    found = {name: _row(of_row) for name, of_row in rows.items()}
    for family, names in FAMILIES.items():
        there = [name for name in names if name in found]
        if there:
            best = max(there, key=lambda n: np.nan_to_num(found[n]["corrupted"]))
            found[family] = {**found[best], "best": best}
    return found


def _row(scored: Sequence[Scored]) -> dict[str, Any]:
    clean = {(one.video, one.frame): one for one in scored if one.run == 0}
    hit = [one for one in scored if one.position]
    between = _between([one for one in scored if one.run])
    row: dict[str, Any] = {
        "corrupted": _iou(hit),
        "trained_kinds": _iou([one for one in hit if one.kind in TRAINED]),
        "unseen_kinds": _iou([one for one in hit if one.kind in UNSEEN]),
        "by_kind": _split(hit, KINDS, lambda one, kind: one.kind == kind),
        "by_severity": _split(hit, SEVERITIES, lambda one, s: one.severity == s),
        "by_position": _split(
            hit,
            POSITIONS,
            lambda one, p: POSITIONS[p][0] <= one.position <= POSITIONS[p][1],
        ),
        "frames": len(hit),
    }
    if clean:
        frames, missing = _recovery(between, clean)
        row |= {
            "corrupted_if_clean": _iou(_in_clean_run(hit, clean)),
            "clean_between": _iou([one for after in between for one in after]),
            "clean_between_if_clean": _iou(
                [one for after in between for one in _in_clean_run(after, clean)]
            ),
            "clean_video": _iou(list(clean.values())),
            "recovery_frames": frames,
            "bursts_not_recovered": missing,
        }
    return row


def _in_clean_run(
    scored: Sequence[Scored], clean: dict[tuple[int, int], Scored]
) -> list[Scored]:
    return [clean[one.video, one.frame] for one in scored]


def _split(
    scored: Sequence[Scored], names: Any, belongs: Callable[[Scored, Any], bool]
) -> dict[str, float]:
    return {
        str(name): _iou([one for one in scored if belongs(one, name)]) for name in names
    }


def _between(scored: Sequence[Scored]) -> list[list[Scored]]:
    """For each burst, the clean frames between it and the next, in order."""
    found: dict[tuple[int, int, int], list[Scored]] = {}
    for one in scored:
        if one.burst and not one.position:
            found.setdefault((one.run, one.video, one.burst), []).append(one)
    return list(found.values())


def _recovery(
    between: Sequence[Sequence[Scored]], clean: dict[tuple[int, int], Scored]
) -> tuple[float, int]:
    """Mean number of frames until recovery, and how many bursts had none."""
    waits, missing = [], 0
    for after in between:
        back = [
            frame_iou(one.counts)
            >= frame_iou(clean[one.video, one.frame].counts) - RECOVERED
            for one in after
        ]
        missing += not any(back)
        waits.append(back.index(True) if any(back) else len(back))
    return float(np.mean(waits)) if waits else float("nan"), missing


def frame_iou(counts: np.ndarray) -> float:
    """Mean IoU of the foreground classes that a frame has or that were predicted.

    1 where there is none of either: nothing was to be found, and nothing was.
    """
    both, predicted, labeled = counts[1:].T
    union = predicted + labeled - both
    there = union > 0
    return float((both[there] / union[there]).mean()) if there.any() else 1.0


def _iou(scored: Sequence[Scored]) -> float:
    if not scored:
        return float("nan")
    counts = np.stack([one.counts for one in scored])
    per_class = summarize(counts, protocol="global")["iou_per_class"]
    return float(mean_known(per_class[1:]))
