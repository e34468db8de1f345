"""Metrics beyond pixel counts: surface distance and temporal flicker."""

import math

import numpy as np
from numpy.typing import NDArray


def normalized_surface_distance(
    prediction: NDArray,
    label: NDArray,
    class_id: int,
    tolerance_px: float,
    *,
    ignore: int = 255,
) -> float:
    """Share of both borders that is within a tolerance of the other border (NSD).

    Nikolov et al., 2018 (arXiv 1809.04430), on pixels: the border of a mask consists of
    its pixels with a scored 4-neighbor outside it, and distances are between pixel
    centers. Image edges and pixels that are not scored are not borders: an instrument
    is cut off there in prediction and label alike, which would score for free.

    Args:
        prediction: int [H, W].
        label: int [H, W].
        class_id: the class whose borders are compared.
        tolerance_px: tolerance in pixels, >= 0, such as the disagreement between two
            annotators.
        ignore: label of pixels that are not scored.

    Returns:
        A score in 0..1; NaN if neither mask has a border, 0 if only one has none.

    Raises:
        ValueError: the shapes differ or the tolerance is invalid.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.ndim != 2 or prediction.shape != label.shape:
        raise ValueError(
            f"prediction {prediction.shape} and label {label.shape} do not match: both "
            "must be [H, W]"
        )
    if not 0 <= tolerance_px < math.inf:
        raise ValueError(f"tolerance_px must be finite and >= 0, not {tolerance_px}")
    here = (prediction == class_id) | (label == class_id)
    if not here.any():
        return float("nan")
    # Crop to both masks and one pixel around them, which contains all borders.
    box = _extent(here.any(1)), _extent(here.any(0))
    prediction, label = prediction[box], label[box]
    scored = label != ignore
    ours = _border(prediction == class_id, scored)
    theirs = _border(label == class_id, scored)
    pixels = int(ours.sum() + theirs.sum())
    if pixels == 0:
        return float("nan")
    near = _count_near(ours, theirs, tolerance_px)
    near += _count_near(theirs, ours, tolerance_px)
    return near / pixels


def flicker(predictions: NDArray, labels: NDArray, *, ignore: int = 255) -> float:
    """Share of pixels whose prediction changes although the label does not.

    A pixel of a pair of consecutive frames counts if its label is scored and equal in
    both frames, and the label or one of the predictions is not background (class 0).
    The result is the share of these pixels whose two predictions differ. A constant
    wrong prediction scores 0, so report flicker together with an IoU.

    Args:
        predictions: int [T, H, W], consecutive frames of one video.
        labels: int [T, H, W].
        ignore: label of pixels that are not scored.

    Returns:
        0 (steady) to 1; NaN if no pixel counts, such as for a single frame.

    Raises:
        ValueError: the shapes differ.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 3 or predictions.shape != labels.shape:
        raise ValueError(
            f"predictions {predictions.shape} and labels {labels.shape} do not match: "
            "both must be [T, H, W]"
        )
    pairs = zip(predictions, predictions[1:], labels, labels[1:], strict=False)
    table = [flicker_counts(*pair, ignore=ignore) for pair in pairs]
    changed, counted = np.sum(table, axis=0) if table else (0, 0)
    return float(changed / counted) if counted else float("nan")


def flicker_counts(
    prediction_before: NDArray,
    prediction: NDArray,
    label_before: NDArray,
    label: NDArray,
    *,
    ignore: int = 255,
) -> NDArray[np.int64]:
    """Pixel counts of `flicker` for one pair of frames; sum them over pairs and videos.

    Args:
        prediction_before: int [H, W], prediction for the previous frame.
        prediction: int [H, W].
        label_before: int [H, W], label of the previous frame.
        label: int [H, W].
        ignore: label of pixels that are not scored.

    Returns:
        int64 [2]: number of pixels whose prediction changes, number of pixels counted.
    """
    steady = (label == label_before) & (label != ignore)
    relevant = (label != 0) | (prediction != 0) | (prediction_before != 0)
    cells = steady & relevant
    changed = cells & (prediction != prediction_before)
    return np.array([np.count_nonzero(changed), np.count_nonzero(cells)], np.int64)


def _extent(mask: NDArray[np.bool_]) -> slice:
    """Returns the range of True elements, extended by one on both sides."""
    indices = np.flatnonzero(mask)
    return slice(max(indices[0] - 1, 0), indices[-1] + 2)


def _border(mask: NDArray[np.bool_], scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside, outside = mask & scored, ~mask & scored
    beside = np.zeros_like(mask)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def _count_near(
    points: NDArray[np.bool_], others: NDArray[np.bool_], radius: float
) -> int:
    """Counts the points that have one of the others within `radius`, exactly.

    Borders have few pixels, so each offset inside the disk is tested only at the
    points, nearest offset first. Points that are matched are removed.
    """
    rows, columns = np.nonzero(points)
    if not len(rows) or not others.any():
        return 0
    square = math.floor(radius * radius)
    height, width = (min(math.isqrt(square), side - 1) for side in points.shape)
    padded = np.pad(others, ((height, height), (width, width)))
    down, right = np.mgrid[: 2 * height + 1, : 2 * width + 1].reshape(2, -1)
    distance = (down - height) ** 2 + (right - width) ** 2
    near = 0
    for i in np.argsort(distance, kind="stable")[: int((distance <= square).sum())]:
        hit = padded[rows + down[i], columns + right[i]]
        near += int(np.count_nonzero(hit))
        rows, columns = rows[~hit], columns[~hit]
        if not len(rows):
            break
    return near
