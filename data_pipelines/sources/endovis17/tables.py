"""EndoVis 2017: classes of the three tasks, folder names, cross-validation folds."""

from data_pipelines.frames import ClassInfo, DataError

_BACKGROUND = ClassInfo("background", (0, 0, 0))

CLASSES: dict[str, tuple[ClassInfo, ...]] = {
    "binary": (_BACKGROUND, ClassInfo("instrument", (230, 159, 0))),
    "parts": (
        _BACKGROUND,
        ClassInfo("shaft", (86, 180, 233)),
        ClassInfo("wrist", (240, 228, 66)),
        ClassInfo("claspers", (213, 94, 0)),
    ),
    "types": (
        _BACKGROUND,
        ClassInfo("bipolar forceps", (230, 159, 0)),
        ClassInfo("prograsp forceps", (86, 180, 233)),
        ClassInfo("large needle driver", (0, 158, 115)),
        ClassInfo("vessel sealer", (240, 228, 66)),
        ClassInfo("grasping retractor", (0, 114, 178)),
        ClassInfo("monopolar curved scissors", (213, 94, 0)),
        ClassInfo("other", (204, 121, 167)),
    ),
}
"""Classes by task, with the ids of the challenge.

The colors are the Okabe-Ito palette, which is safe for color-blind readers.
"""

OTHER = 7
"""Type of objects that are not da Vinci instruments; only used in the types task."""

FOLDS = ((1, 3), (2, 5), (4, 8), (6, 7))
"""Validation sequences of each fold; the division in use since the challenge."""

SEQUENCES = tuple(range(1, 9))

# Folder names contain one of these; "Left", "Maryland" or "_labels" vary by sequence.
_FOLDER_TYPES = {
    "Bipolar_Forceps": 1,
    "Prograsp_Forceps": 2,
    "Large_Needle_Driver": 3,
    "Vessel_Sealer": 4,
    "Grasping_Retractor": 5,
    "Monopolar_Curved_Scissors": 6,
    "Other": OTHER,
}


def instrument_type(folder: str) -> int:
    """Returns the type id, 1 to 7, of a ground truth folder.

    Raises:
        DataError: the name does not contain exactly one instrument name.
    """
    types = [kind for name, kind in _FOLDER_TYPES.items() if name in folder]
    if len(types) != 1:
        raise DataError(
            [
                f"folder {folder!r} names {len(types)} instruments; it must contain "
                f"one of {', '.join(_FOLDER_TYPES)}"
            ]
        )
    return types[0]


def fold_split(fold: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the sequence numbers (train, val) of fold 0 to 3.

    Raises:
        ValueError: the fold does not exist.
    """
    if not 0 <= fold < len(FOLDS):
        raise ValueError(f"fold={fold}: folds are 0 to {len(FOLDS) - 1}")
    val = FOLDS[fold]
    return tuple(k for k in SEQUENCES if k not in val), val


TEST_SEQUENCES = tuple(range(1, 11))
"""Test sequences.

Sequences 1 to 8 continue the training sequences of the same number; 9 and 10 are
separate procedures.
"""


def train_for_test(sequence: int) -> tuple[int, ...]:
    """Returns the training sequences that may be used to predict a test sequence.

    The challenge excludes the training sequence that the test sequence continues.

    Raises:
        ValueError: the test sequence does not exist.
    """
    if sequence not in TEST_SEQUENCES:
        raise ValueError(f"sequence={sequence}: test sequences are 1 to 10")
    return tuple(k for k in SEQUENCES if k != sequence)
