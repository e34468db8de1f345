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
"""Classes by task; ids are the challenge's. Colours are the Okabe-Ito set, which the
colour-blind can tell apart."""

OTHER = 7
"""Type of what is no da Vinci instrument; it counts in the types task only."""

FOLDS = ((1, 3), (2, 5), (4, 8), (6, 7))
"""Sequences that each fold validates on; the division in use since the challenge."""

SEQUENCES = tuple(range(1, 9))

# Left and right, Maryland and a missing "_labels" vary between the sequences.
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
    """The type id, 1 to 7, of a ground-truth folder, by what its name contains.

    Raises:
        DataError: the name contains none of the instruments' names, or several.
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
    """Sequence numbers (train, val) of fold 0 to 3.

    Raises:
        ValueError: there is no such fold.
    """
    if not 0 <= fold < len(FOLDS):
        raise ValueError(f"fold={fold}: folds are 0 to {len(FOLDS) - 1}")
    val = FOLDS[fold]
    return tuple(k for k in SEQUENCES if k not in val), val


TEST_SEQUENCES = tuple(range(1, 11))
"""Test sequences. 1 to 8 go on where the training sequences of the same number end; 9
and 10 are operations of their own."""


def train_for_test(sequence: int) -> tuple[int, ...]:
    """Training sequences that may be used to predict a test sequence.

    The challenge's rule: all but the one whose continuation the test sequence is.

    Raises:
        ValueError: there is no such test sequence.
    """
    if sequence not in TEST_SEQUENCES:
        raise ValueError(f"sequence={sequence}: test sequences are 1 to 10")
    return tuple(k for k in SEQUENCES if k != sequence)
