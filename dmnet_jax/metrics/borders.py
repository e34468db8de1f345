"""What counts of pixels cannot tell: where the borders are, and how they flicker."""

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
    """Share of both borders that lies within a tolerance of the other (NSD).

    Nikolov et al., 2018 (arXiv 1809.04430), on pixels: the border of a mask is its
    pixels with a scored neighbor (of four) outside it, and distances are between
    pixel centers. The picture's edge and pixels that are not scored are no border: a
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
    here = (prediction == class_id) | (label == class_id)
    if not here.any():
        return float("nan")
    # All borders, and what is beside them; a mask is small in its picture.
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
    """What `flicker` divides, of one pair of frames; add up over pairs and videos.

    Args:
        prediction_before: int [H, W], of the frame before.
        prediction: int [H, W].
        label_before: int [H, W], of the frame before.
        label: int [H, W].
        ignore: label of pixels that are not scored.

    Returns:
        int64 [2]: pixels whose prediction changes, pixels that count.
    """
    steady = (label == label_before) & (label != ignore)
    relevant = (label != 0) | (prediction != 0) | (prediction_before != 0)
    cells = steady & relevant
    changed = cells & (prediction != prediction_before)
    return np.array([np.count_nonzero(changed), np.count_nonzero(cells)], np.int64)


def _extent(there: NDArray[np.bool_]) -> slice:
    """From before the first that is there to after the last, inside the array."""
    found = np.flatnonzero(there)
    return slice(max(found[0] - 1, 0), found[-1] + 2)


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
    """How many points have one of the others at most `radius` away, exactly.

    Borders are a few thousand pixels of a million, so each offset inside the disk is
    looked up for the points alone, the nearest first, and a point that is done leaves.
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
