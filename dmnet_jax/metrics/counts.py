"""Pixel counts of one frame."""

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    prediction: NDArray, label: NDArray, num_classes: int, *, ignore: int = 255
) -> NDArray[np.int64]:
    """Counts scored pixels by (label, prediction). Sum the matrices over frames.

    Args:
        prediction: int [H, W], in 0..num_classes-1 where the label is scored.
        label: int [H, W], in 0..num_classes-1 or `ignore`.
        num_classes: number of classes, including background.
        ignore: label of pixels that are not scored.

    Returns:
        int64 [num_classes, num_classes], rows are labels.

    Raises:
        ValueError: shapes or dtypes are invalid, or a value is not a class; names the
            value and its first pixel.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.ndim != 2 or prediction.shape != label.shape:
        raise ValueError(
            f"prediction {prediction.shape} and label {label.shape} do not match: both "
            "must be [H, W]; resize the prediction to the label's size"
        )
    scored = label != ignore
    _check_values("prediction", prediction, scored, num_classes)
    _check_values("label", label, scored, num_classes)
    pairs = label[scored].astype(np.intp) * num_classes + prediction[scored]
    matrix = np.bincount(pairs, minlength=num_classes**2)
    return matrix.reshape(num_classes, num_classes).astype(np.int64)


def frame_counts(
    prediction: NDArray, label: NDArray, num_classes: int, *, ignore: int = 255
) -> NDArray[np.int64]:
    """Counts the pixels of the intersection and of both masks, for each class.

    All protocols are computed from these counts.

    Args:
        prediction: int [H, W], in 0..num_classes-1 where the label is scored.
        label: int [H, W], in 0..num_classes-1 or `ignore`.
        num_classes: number of classes, including background (class 0).
        ignore: label of pixels that are excluded from all three counts.

    Returns:
        int64 [num_classes, 3]: pixels of |prediction and label|, |prediction|, |label|.

    Raises:
        ValueError: see `confusion_matrix`.
    """
    return counts_of(confusion_matrix(prediction, label, num_classes, ignore=ignore))


def counts_of(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Computes `frame_counts` from a confusion matrix [num_classes, num_classes]."""
    sizes = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return np.stack(sizes, axis=-1)


def _check_values(
    name: str, values: NDArray, scored: NDArray[np.bool_], num_classes: int
) -> None:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {values.dtype}")
    wrong = scored & ((values < 0) | (values >= num_classes))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} is {values[row, column]} at row {row}, column {column}; it must "
            f"be a class from 0 to {num_classes - 1}"
        )
