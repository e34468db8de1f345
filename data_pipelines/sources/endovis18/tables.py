"""EndoVis 2018: classes of the tasks, label colours, divisions of the sequences."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_pipelines.frames import IGNORE, ClassInfo, DataError

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
"""Classes by task. "all" has the challenge's ids and label colours; "parts" has the
order, names and colours of the parts of EndoVis 2017."""

SEQUENCES = (*range(1, 8), *range(9, 17))
"""Training sequences; there is no sequence 8."""

UNKNOWN = ("error", "ignore", "nearest")
"""What may be done with a pixel whose colour is no class's."""


@dataclass(frozen=True)
class Split:
    """Sequence numbers; `test` are those of the test archive, other procedures."""

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
"""Divisions in use. The challenge has 15 training and 4 test sequences. DMNet keeps 3
of the 15 for validation without naming them; 5, 9 and 15 are this project's choice.
ISINet and its followers validate on 2, 5, 9 and 15 and leave the test archive aside."""

_PARTS = np.array([0, 1, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0], np.uint8)
_NONE = 254


def decode_colors(
    rgb: np.ndarray, path: object, *, task: str = "all", on_unknown: str = "error"
) -> tuple[np.ndarray, dict[str, int]]:
    """Class indices of label colours.

    Args:
        rgb: uint8 `[H, W, 3]`.
        path: the file that errors name.
        task: "all" or "parts"; in "parts" what is no instrument part is background.
        on_unknown: "error"; "ignore" makes a pixel of no class's colour `IGNORE`;
            "nearest" gives it the class of the nearest colour (squared RGB distance,
            the lower id on a tie).

    Returns:
        (uint8 `[H, W]`, pixels by colour, #rrggbb, that is no class's).

    Raises:
        DataError: `on_unknown` is "error" and a pixel's colour is no class's.
    """
    wide = rgb.astype(np.uint32)
    codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    label = _color_table()[codes]
    unknown = label == _NONE
    count = int(np.count_nonzero(unknown))
    if count and on_unknown == "error":
        row, column = np.unravel_index(unknown.argmax(), unknown.shape)
        raise DataError(
            [
                f"{path}: colour {tuple(rgb[row, column].tolist())} at row {row}, "
                f"column {column} is no class's ({count} such pixels); replace the "
                "file, or let unknown colours be ignored or taken as the nearest"
            ]
        )
    if count and on_unknown == "nearest":
        label[unknown] = _nearest(codes[unknown])
    colors, counts = np.unique(codes[unknown], return_counts=True)
    found = {
        f"#{color:06x}": int(number)
        for color, number in zip(colors, counts, strict=True)
    }
    if task == "parts":
        known = label < len(_PARTS)
        label[known] = _PARTS[label[known]]
    label[label == _NONE] = IGNORE
    return label, found


@lru_cache(maxsize=1)
def _color_table() -> np.ndarray:
    """Class by 24-bit colour: 16 MB, several times as fast as comparing colours."""
    table = np.full(1 << 24, _NONE, np.uint8)
    for index, info in enumerate(CLASSES["all"]):
        red, green, blue = info.color
        table[red << 16 | green << 8 | blue] = index
    return table


def _nearest(codes: np.ndarray) -> np.ndarray:
    colors, where = np.unique(codes, return_inverse=True)
    channels = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1)
    classes = np.array([info.color for info in CLASSES["all"]], np.int64)
    distance = np.stack(
        [((channels.astype(np.int64) - one) ** 2).sum(-1) for one in classes], -1
    )
    return distance.argmin(-1).astype(np.uint8)[where]
