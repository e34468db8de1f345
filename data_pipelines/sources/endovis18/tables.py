"""EndoVis 2018: classes of the tasks, label colors, divisions of the sequences."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.io.images import first_pixel

_BACKGROUND = ClassInfo("background", (0, 0, 0))

CLASSES: dict[str, tuple[ClassInfo, ...]] = {
    "parts": (
        _BACKGROUND,
        ClassInfo("shaft", (86, 180, 233)),
        ClassInfo("wrist", (240, 228, 66)),
        ClassInfo("claspers", (213, 94, 0)),
    ),
    "all": (
        ClassInfo("background-tissue", (0, 0, 0)),
        ClassInfo("instrument-shaft", (0, 255, 0)),
        ClassInfo("instrument-clasper", (0, 255, 255)),
        ClassInfo("instrument-wrist", (125, 255, 12)),
        ClassInfo("kidney-parenchyma", (255, 55, 0)),
        ClassInfo("covered-kidney", (24, 55, 125)),
        ClassInfo("thread", (187, 155, 25)),
        ClassInfo("clamps", (0, 255, 125)),
        ClassInfo("suturing-needle", (255, 255, 125)),
        ClassInfo("suction-instrument", (123, 15, 175)),
        ClassInfo("small-intestine", (124, 155, 5)),
        ClassInfo("ultrasound-probe", (12, 255, 141)),
    ),
}
"""Classes by task.

"all" has the ids and label colors of the challenge; "parts" has the order, names and
colors of the parts of EndoVis 2017.
"""

SEQUENCES = (*range(1, 8), *range(9, 17))
"""Training sequences; there is no sequence 8."""

UNKNOWN = ("error", "ignore", "nearest")
"""Treatments of colors that belong to no class; see `decode_colors`."""


@dataclass(frozen=True)
class Split:
    """A division of the sequences.

    Attributes:
        train: numbers of the training sequences.
        val: numbers of the validation sequences.
        test: numbers in the test archive, whose sequences are different procedures.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


def _without(val: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k for k in SEQUENCES if k not in val)


SPLITS = {
    "challenge": Split(SEQUENCES, (), (1, 2, 3, 4)),
    "paper": Split(_without((5, 9, 15)), (5, 9, 15), (1, 2, 3, 4)),
    "isinet": Split(_without((2, 5, 9, 15)), (2, 5, 9, 15), ()),
}
"""Divisions by name.

The challenge has 15 training and 4 test sequences. DMNet keeps 3 of the 15 for
validation without naming them; 5, 9 and 15 are this project's choice. ISINet and later
work validate on 2, 5, 9 and 15 and do not use the test archive.
"""

_PARTS = np.array([0, 1, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0], np.uint8)
_UNKNOWN_CLASS = 254


def decode_colors(
    rgb: np.ndarray, path: object, *, task: str = "all", on_unknown: str = "error"
) -> tuple[np.ndarray, dict[str, int]]:
    """Converts label colors to class indices.

    Args:
        rgb: uint8 `[H, W, 3]`.
        path: the file, for error messages.
        task: "all" or "parts"; in "parts", all but instrument parts is background.
        on_unknown: treatment of colors that belong to no class: "error"; "ignore" makes
            such a pixel `IGNORE`; "nearest" assigns the class of the nearest color
            (squared RGB distance, the lower id on a tie).

    Returns:
        (classes, unknown): uint8 `[H, W]`, and pixel counts by color (#rrggbb) that
        belongs to no class.

    Raises:
        DataError: `on_unknown` is "error" and a color belongs to no class.
    """
    wide = rgb.astype(np.uint32)
    codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    label = _color_table()[codes]
    unknown = label == _UNKNOWN_CLASS
    count = int(np.count_nonzero(unknown))
    if count and on_unknown == "error":
        row, column = first_pixel(unknown)
        raise DataError(
            [
                f"{path}: color {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} belongs to no class ({count} such pixels); replace "
                "the file, or choose ignore or nearest for unknown colors"
            ]
        )
    if count and on_unknown == "nearest":
        label[unknown] = _nearest(codes[unknown])
    colors, counts = np.unique(codes[unknown], return_counts=True)
    unknown_counts = {
        f"#{color:06x}": int(number)
        for color, number in zip(colors, counts, strict=True)
    }
    if task == "parts":
        known = label < len(_PARTS)
        label[known] = _PARTS[label[known]]
    label[label == _UNKNOWN_CLASS] = IGNORE
    return label, unknown_counts


@lru_cache(maxsize=1)
def _color_table() -> np.ndarray:
    """Returns classes by 24-bit color: 16 MB, but faster than comparing colors."""
    table = np.full(1 << 24, _UNKNOWN_CLASS, np.uint8)
    for index, info in enumerate(CLASSES["all"]):
        red, green, blue = info.color
        table[red << 16 | green << 8 | blue] = index
    return table


def _nearest(codes: np.ndarray) -> np.ndarray:
    """Returns the class of the nearest color for each 24-bit color."""
    colors, inverse = np.unique(codes, return_inverse=True)
    channels = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1)
    classes = np.array([info.color for info in CLASSES["all"]], np.int64)
    distance = np.stack(
        [((channels.astype(np.int64) - color) ** 2).sum(-1) for color in classes], -1
    )
    return distance.argmin(-1).astype(np.uint8)[inverse]
