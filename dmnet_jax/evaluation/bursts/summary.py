"""Summary of the burst benchmark: scores by kind, severity and burst position."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.corruption import KINDS, SEVERITIES, TRAINED, UNSEEN
from dmnet_jax.evaluation.bursts.averages import FAMILIES
from dmnet_jax.evaluation.bursts.benchmark import Scored
from dmnet_jax.metrics import mean_known, summarize

POSITIONS = {"1": (1, 1), "2-3": (2, 3), "4-6": (4, 6), "7-12": (7, 12)}
"""Ranges (first, last) of positions in a burst that are scored together, by name."""
RECOVERED = 0.02
"""A frame has recovered if its IoU is within this of the clean run's."""


def summarized(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Computes the scores of each row, the network's first; IoU in 0..1 or NaN.

    Every IoU is the mean over foreground classes with pixels pooled over frames. For
    each family of averages, the one that is best on corrupted frames is repeated under
    the name of the family, with its own name as "best".

    Args:
        scored: result of `run_bursts`.

    Returns:
        For each row:

        - "corrupted", "trained_kinds", "unseen_kinds": IoU of corrupted frames.
        - "corrupted_if_clean": IoU of the same frames in the row's clean run, which
          shows the possible gain.
        - "clean_between": IoU of clean frames after a video's first burst.
        - "clean_between_if_clean": IoU of the same frames in the clean run.
        - "clean_video": IoU of the clean run.
        - "by_kind", "by_severity", "by_position": IoU of groups of corrupted frames.
        - "recovery_frames": number of clean frames after a burst until the first whose
          IoU is within 2 points of the clean run, averaged over bursts. A burst without
          such a frame counts with all frames up to the next burst or the end.
        - "bursts_not_recovered": number of such bursts.
        - "frames": number of corrupted frames.

        Rows with a wrong memory have scores of corrupted frames only.
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
    """Returns, for each burst, the clean frames between it and the next, in order."""
    frames: dict[tuple[int, int, int], list[Scored]] = {}
    for one in scored:
        if one.burst and not one.position:
            frames.setdefault((one.run, one.video, one.burst), []).append(one)
    return list(frames.values())


def _recovery(
    between: Sequence[Sequence[Scored]], clean: dict[tuple[int, int], Scored]
) -> tuple[float, int]:
    """Returns the mean number of frames until recovery, and the bursts without one."""
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
    """Mean IoU over the foreground classes in the label or prediction of a frame.

    1 if there is no foreground in either.
    """
    both, predicted, labeled = counts[1:].T
    union = predicted + labeled - both
    present = union > 0
    return float((both[present] / union[present]).mean()) if present.any() else 1.0


def _iou(scored: Sequence[Scored]) -> float:
    if not scored:
        return float("nan")
    counts = np.stack([one.counts for one in scored])
    per_class = summarize(counts, protocol="global")["iou_per_class"]
    return float(mean_known(per_class[1:]))
