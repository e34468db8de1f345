"""EndoVis 2017, robotic instrument segmentation, as the challenge distributes it."""

from data_pipelines.endovis17.raw import EndoVis17, open_endovis17, picture_box
from data_pipelines.endovis17.tables import CLASSES, FOLDS, fold_split, instrument_type

__all__ = [
    "CLASSES",
    "FOLDS",
    "EndoVis17",
    "fold_split",
    "instrument_type",
    "open_endovis17",
    "picture_box",
]
