"""Masks of a user's own videos to class indices, by what their values mean.

class    a value is the class: 0, 1, 2, ...; 255 is not scored, unless the whole tree
         has no other foreground, see `open_folder`
binary   0 is background, 255 is class 1, as most tools export a binary mask
colors   an RGB color is the class that has it in classes.json
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
from data_pipelines.sources.dataset import MASK_VALUES as MASK_VALUES
from data_pipelines.sources.dataset import MaskValues as MaskValues

_OTHER_WAYS = (
    "masks whose values are no class indices are read by mask-values (train.py: "
    "--data.mask-values, data_pipelines.prepare: --mask-values): binary takes 0 and "
    "255 as 0 and 1, colors takes RGB by the colors in classes.json"
)


def mask_values_advice(faults: Iterable[str], values: MaskValues) -> list[str]:
    """A line to end a report with, if any of its faults is about a mask's values.

    For datasets of which `mask_values` may be chosen.
    """
    told = any("mask value" in line or "no class index" in line for line in faults)
    return [_OTHER_WAYS] if told and values == "class" else []


def read_mask(
    path: Path,
    classes: Sequence[ClassInfo],
    values: MaskValues = "class",
    ignore: Sequence[int] = (),
) -> np.ndarray:
    """A mask file's classes, uint8 `[h, w]`, `IGNORE` where it is not scored.

    Args:
        path: a file of a format that loses nothing.
        classes: background first.
        values: what a value means, see above.
        ignore: values that are not scored ("class" only).

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be decoded, or a pixel is of no class; names the pixel.
    """
    if values == "binary":
        return _binary(path)
    if values == "colors":
        return _colors(path, classes)
    return read_label(path, len(classes), ignore)


def _binary(path: Path) -> np.ndarray:
    stored = read_gray(path)
    # 1 as well: a one-bit PNG has it, and so have masks that are class indices already.
    wrong = (stored > 1) & (stored < 255)
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
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
    wrong = label == len(classes)
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        raise DataError(
            [
                f"{path}: color {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} is no class's in classes.json "
                f"({np.count_nonzero(wrong)} such pixels); add it or mend the mask"
            ]
        )
    return label
