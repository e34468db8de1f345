"""What counts of pixels cannot tell: where the borders are, and how they flicker."""

import math

import numpy as np
from numpy.typing import NDArray


def normalised_surface_distance(
    prediction: NDArray,
    label: NDArray,
    class_id: int,
    tolerance_px: float,
    *,
    ignore: int = 255,
) -> float:
    """Share of both borders that lies within a tolerance of the other (NSD).

    Nikolov et al., 2018 (arXiv 1809.04430), on pixels: the border of a mask is its
    pixels with a scored neighbour (of four) outside it, and distances are between
    pixel centres. The picture's edge and pixels that are not scored are no border: a
    shaft cut off there is cut off alike in prediction and label, and would score for
    nothing.

    Args:
        prediction: int [H, W].
        label: int [H, W].
        class_id: the class whose borders are compared.
        tolerance_px: pixels, >= 0; the disagreement between two annotators, say.
        ignore: label of pixels that are not scored.

    Returns:
        0..1; NaN if neither has a border; 0 if one has none.

    Raises:
        ValueError: on shapes that do not fit or a negative tolerance.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.ndim != 2 or prediction.shape != label.shape:
        raise ValueError(
            f"prediction {prediction.shape} and label {label.shape} do not fit: want "
            "[H, W] of one size"
        )
    if not 0 <= tolerance_px < math.inf:
        raise ValueError(f"tolerance_px must be finite and >= 0, not {tolerance_px}")
    scored = label != ignore
    ours = _border(prediction == class_id, scored)
    theirs = _border(label == class_id, scored)
    pixels = int(ours.sum() + theirs.sum())
    if pixels == 0:
        return float("nan")
    near = (ours & _within(theirs, tolerance_px)).sum()
    near += (theirs & _within(ours, tolerance_px)).sum()
    return float(near / pixels)


def flicker(predictions: NDArray, labels: NDArray, *, ignore: int = 255) -> float:
    """Share of pixels whose prediction changes though the label does not.

    Of all pixels in all pairs of consecutive frames, those count whose label is scored
    and the same in both frames, and for which the label or either prediction is not
    background (class 0). Of those, the share with two different predictions. A steady
    wrong prediction scores 0: read it beside an IoU.

    Args:
        predictions: int [T, H, W], consecutive frames of one video.
        labels: int [T, H, W].
        ignore: label of pixels that are not scored.

    Returns:
        0 (steady) to 1; NaN if no pixel counts, as for a single frame.

    Raises:
        ValueError: on shapes that do not fit.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 3 or predictions.shape != labels.shape:
        raise ValueError(
            f"predictions {predictions.shape} and labels {labels.shape} do not fit: "
            "want [T, H, W] of one size"
        )
    changed = counted = 0
    for t in range(1, len(labels)):
        steady = (labels[t] == labels[t - 1]) & (labels[t] != ignore)
        relevant = (labels[t] != 0) | (predictions[t] != 0) | (predictions[t - 1] != 0)
        cells = steady & relevant
        changed += int((cells & (predictions[t] != predictions[t - 1])).sum())
        counted += int(cells.sum())
    return changed / counted if counted else float("nan")


def _border(mask: NDArray[np.bool_], scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside, outside = mask & scored, ~mask & scored
    beside = np.zeros_like(mask)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def _within(points: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Where a point is at most `radius` away: exact dilation by a disk.

    A disk is a stack of vertical runs, one a column, so a vertical distance and one
    shift per column do for it: O(radius) passes instead of O(radius^2).
    """
    height, width = points.shape
    square = math.floor(radius * radius)
    reach = math.isqrt(square)
    far = reach + 1
    distance = np.where(points, 0, far)
    for step in range(1, min(reach, height - 1) + 1):
        for target, source in (
            (distance[step:], points[:-step]),
            (distance[:-step], points[step:]),
        ):
            np.minimum(target, np.where(source, step, far), out=target)
    near = np.zeros_like(points)
    for step in range(min(reach, width - 1) + 1):
        run = distance <= math.isqrt(square - step * step)
        near[:, step:] |= run[:, : width - step]
        near[:, : width - step] |= run[:, step:]
    return near
