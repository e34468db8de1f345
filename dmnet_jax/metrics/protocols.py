"""Published scoring protocols, computed from one table of counts.

Papers on surgical instruments report quantities called "mean IoU" that differ by tens
of points on the same predictions. They differ in which (frame, class) cells count and
in whether the mean over classes is taken per frame first:

    protocol   cells that count              averaged over
    ternaus    class in the label            classes of a frame, then frames
    mf_tapnet  class in the label            the same, frames without any dropped
    challenge  class in the label            the same
    stswincl   class in the label            the same
    isi        in the label or predicted     classes of a frame, then frames
    dmnet      over 10 pixels of label       frames of a class, then classes
    mciou      in the label or predicted     frames of a class, then classes
    global     all, pixels summed            classes in any label

Only isi, mciou and global penalize predicting a class in a frame without it.
"""

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        "ternaus": "A: mean over frames of the labeled classes' mean, an empty frame "
        "scores 1 or 0; TernausNet (Shvets et al., 2018), at 1024x1280, and papers "
        "that quote it",
        "mf_tapnet": "B: mean over frames of the labeled classes' mean, empty frames "
        "dropped; MF-TAPNet (Jin et al., 2019), at its input size, EndoVis 2017 "
        "challenge",
        "dmnet": "C: mean over classes of the mean over frames with more than 10 "
        "labeled pixels; code of DMNet (Wang et al., 2021), at its input size",
        "stswincl": "D: mean over frames of the labeled classes' mean, 12 classes of "
        "EndoVis 2018; STswinCL (Jin et al., 2022), at 1024x1280",
        "challenge": "E: 'Challenge IoU', the same as mf_tapnet; ISINet (Gonzalez et "
        "al., 2020), MATIS, SurgicalSAM",
        "isi": "E: 'ISI IoU', mean over frames of the mean over labeled or predicted "
        "classes; ISINet, MATIS, SurgicalSAM",
        "mciou": "E: 'mean class IoU', mean over classes of the mean over frames that "
        "have or predict it; ISINet, MATIS (absent='zero'), SurgicalSAM",
        "global": "F: pixels of all frames added up, mean over labeled classes; "
        "the 'mIoU' of scene segmentation, Cityscapes and CamVid",
    }
)

"""Description of each published protocol, by name."""

# TernausNet's released evaluation adds this to numerator and denominator.
TERNAUS_EPSILON = 1e-15
# DMNet's released evaluation counts a class in a frame above this many pixels.
DMNET_MIN_PIXELS = 10


def summarize(
    counts: ArrayLike, *, protocol: str, absent: Literal["skip", "zero"] = "skip"
) -> dict[str, Any]:
    """Scores a table of counts by a published protocol.

    The order of frames does not matter. Dice is aggregated like IoU. Background (class
    0) is excluded from all means. Frames without a scored pixel are ignored. For a
    score over folds, average the summaries of the folds (see `per_video`).

    Args:
        counts: int [frames, num_classes, 3], rows from `frame_counts`.
        protocol: a key of `PROTOCOLS`.
        absent: for mciou, whether a class without any frame is skipped or counts as 0,
            as in MATIS.

    Returns:
        "iou" and "dice", float; "iou_per_class" and "dice_per_class", float64
        [num_classes], by the same rule for one class (its mean over the frames where
        it counts, or its summed pixels), background first; "frames_per_class", int64
        [num_classes], number of frames in which the class counts. NaN where nothing
        counts.

    Raises:
        ValueError: the protocol is unknown or the table is invalid.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"unknown protocol '{protocol}'; use one of {', '.join(PROTOCOLS)} (the "
            "inflated training-time score of TernausNet is ternaus_validation)"
        )
    if absent not in ("skip", "zero"):
        raise ValueError(f"absent must be 'skip' or 'zero', not '{absent}'")
    table = checked_counts(counts)
    table = table[table[:, :, 2].sum(1) > 0].astype(np.float64)
    overlap, predicted, labeled = np.moveaxis(table, -1, 0)
    if protocol in ("isi", "mciou"):
        cells = predicted + labeled > 0
    elif protocol == "dmnet":
        cells = labeled > DMNET_MIN_PIXELS
    else:
        cells = labeled > 0

    summary: dict[str, Any] = {}
    for name, top, bottom in (
        ("iou", overlap, predicted + labeled - overlap),
        ("dice", 2 * overlap, predicted + labeled),
    ):
        epsilon = TERNAUS_EPSILON if protocol == "ternaus" else 0.0
        score = _divide(top + epsilon, bottom + epsilon)
        if protocol == "global":
            of_class = _divide(top.sum(0), bottom.sum(0))
            of_class = np.where(cells.any(0), of_class, np.nan)
        else:
            of_class = _mean(score, cells, axis=0)
        summary[f"{name}_per_class"] = of_class

        if protocol in ("dmnet", "mciou", "global"):
            known = of_class[1:]
            if protocol == "mciou" and absent == "zero" and len(table):
                known = np.nan_to_num(known, nan=0.0)
            summary[name] = float(mean_known(known))
        else:
            of_frame = _mean(score[:, 1:], cells[:, 1:], axis=1)
            if protocol == "ternaus":
                clean = predicted[:, 1:].sum(1) == 0
                empty = ~cells[:, 1:].any(1)
                of_frame = np.where(empty, clean.astype(np.float64), of_frame)
            summary[name] = float(mean_known(of_frame))
    summary["frames_per_class"] = cells.sum(0)
    return summary


def ternaus_validation(confusion: ArrayLike) -> dict[str, Any]:
    """Protocol A', printed by TernausNet and LWANet during training. Do not report it.

    The row and column of the background are deleted before counting, so that missing
    half an instrument, or labeling tissue as instrument, costs nothing. The result is
    not an IoU; the function exists to recognize such numbers and issues a warning. It
    needs a confusion matrix, because a table of counts does not show which classes were
    confused.

    Args:
        confusion: int [num_classes, num_classes], `confusion_matrix` summed over all
            frames.

    Returns:
        "iou" and "dice", means over all foreground classes, with absent classes as 0;
        "iou_per_class" and "dice_per_class", float64 [num_classes], NaN for background.

    Raises:
        ValueError: the matrix is not square.
    """
    matrix = np.asarray(confusion, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"confusion is {matrix.shape}; it must be [num_classes, num_classes]"
        )
    warnings.warn(
        "ternaus_validation ignores all confusion with the background; it is inflated "
        "and not an IoU: report 'ternaus' or 'global' instead",
        UserWarning,
        stacklevel=2,
    )
    inner = matrix[1:, 1:]
    overlap, total = inner.diagonal(), inner.sum(0) + inner.sum(1)
    summary: dict[str, Any] = {}
    for name, top, bottom in (
        ("iou", overlap, total - overlap),
        ("dice", 2 * overlap, total),
    ):
        score = np.nan_to_num(_divide(top, bottom), nan=0.0)
        summary[name] = float(mean_known(score))
        summary[f"{name}_per_class"] = np.concatenate([[np.nan], score])
    return summary


def checked_counts(counts: ArrayLike) -> NDArray:
    """Returns `counts` as an array after checking that it is a valid count table.

    Raises:
        ValueError: the table is invalid; names the frame and class.
    """
    table = np.asarray(counts)
    if table.ndim != 3 or table.shape[-1] != 3 or table.shape[1] < 2:
        raise ValueError(
            f"counts are {table.shape}; they must be [frames, num_classes, 3] with two "
            "or more classes"
        )
    wrong = (table[..., 0] < 0) | (table[..., 0] > table[..., 1:].min(-1))
    if wrong.any():
        frame, class_id = np.argwhere(wrong)[0]
        raise ValueError(
            f"counts of frame {frame}, class {class_id} are "
            f"{table[frame, class_id].tolist()}; they must be |both|, |prediction|, "
            "|label|, the first no larger than the others"
        )
    return table


def _divide(top: NDArray, bottom: NDArray) -> NDArray:
    """Returns top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _mean(score: NDArray, cells: NDArray, *, axis: int) -> NDArray:
    """Mean over the cells that count; NaN if none does."""
    total = np.where(cells, score, 0.0).sum(axis)
    return _divide(total, cells.sum(axis).astype(np.float64))


def mean_known(scores: NDArray, axis: int | None = None) -> Any:
    """Mean over values that are not NaN; NaN, without a warning, if there are none."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0.0).sum(axis)
    return _divide(np.asarray(total), np.asarray(known.sum(axis), np.float64))[()]


def deviation(scores: NDArray) -> float:
    """Sample standard deviation (n - 1) without NaN; NaN for fewer than two values."""
    known = scores[~np.isnan(scores)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
