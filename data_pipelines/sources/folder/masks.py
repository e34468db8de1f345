"""Converts masks of a user's videos to class indices.

The values of masks can be interpreted in three ways:

    class    the value is the class: 0, 1, 2, ...; 255 is not scored, unless all masks
             have no other foreground (see `open_folder`)
    binary   0 is background and 255 is class 1, as most tools export binary masks
    colors   the RGB color is that of a class in classes.json
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import (
    ClassInfo,
    DataError,
    read_gray,
    read_label,
    read_mask_colors,
)
from data_pipelines.io.images import first_pixel
from data_pipelines.sources.dataset import MASK_VALUES as MASK_VALUES
from data_pipelines.sources.dataset import MaskValues as MaskValues

_ADVICE = (
    "masks whose values are not class indices need mask-values (train.py: "
    "--data.mask-values, data_pipelines.prepare: --mask-values): binary reads 0 and "
    "255 as 0 and 1, colors reads RGB by the colors in classes.json"
)


def mask_values_advice(faults: Iterable[str], values: MaskValues) -> list[str]:
    """Returns a final line for a report that contains errors about mask values.

    Only for datasets that support several `mask_values`.
    """
    texts = "mask value", "not a class index"
    is_about_values = any(text in line for line in faults for text in texts)
    return [_ADVICE] if is_about_values and values == "class" else []


def read_mask(
    path: Path,
    classes: Sequence[ClassInfo],
    values: MaskValues = "class",
    ignore: Sequence[int] = (),
) -> np.ndarray:
    """Reads the classes of a mask file, uint8 `[h, w]`, `IGNORE` where not scored.

    Args:
        path: a file of a lossless format.
        classes: the classes, background first.
        values: how values are interpreted; see the module's docstring.
        ignore: values that are not scored (only with "class").

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file cannot be decoded, or a pixel belongs to no class.
    """
    if values == "binary":
        return _binary(path)
    if values == "colors":
        return _colors(path, classes)
    return read_label(path, len(classes), ignore)


def _binary(path: Path) -> np.ndarray:
    stored = read_gray(path)
    # 1 is valid too: one-bit PNGs have it, and masks that store class indices.
    invalid = (stored > 1) & (stored < 255)
    if invalid.any():
        row, column = first_pixel(invalid)
        raise DataError(
            [
                f"{path}: mask value {stored[row, column]} at row {row}, column "
                f"{column} is neither 0 nor 255; save the binary mask without smoothing"
            ]
        )
    return (stored > 0).astype(np.uint8)


def _colors(path: Path, classes: Sequence[ClassInfo]) -> np.ndarray:
    rgb = read_mask_colors(path)
    label = np.full(rgb.shape[:2], len(classes), np.uint8)
    for index, info in enumerate(classes):
        label[(rgb == info.color).all(axis=-1)] = index
    invalid = label == len(classes)
    if invalid.any():
        row, column = first_pixel(invalid)
        raise DataError(
            [
                f"{path}: color {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} is not a color of classes.json "
                f"({np.count_nonzero(invalid)} such pixels); add it or correct the mask"
            ]
        )
    return label
