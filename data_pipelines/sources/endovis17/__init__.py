"""EndoVis 2017, robotic instrument segmentation, as distributed by the challenge."""

from data_pipelines.sources.endovis17.dataset import DATASET
from data_pipelines.sources.endovis17.raw import EndoVis17, open_endovis17, part_classes
from data_pipelines.sources.endovis17.tables import (
    CLASSES,
    FOLDS,
    SEQUENCES,
    TEST_SEQUENCES,
    fold_split,
    instrument_type,
    train_for_test,
)
from data_pipelines.sources.endovis17.test_set import (
    KINDS,
    EndoVis17Test,
    decode_test_mask,
    open_endovis17_test,
)
from data_pipelines.sources.endovis17.tree import (
    crop_border,
    picture_box,
    sequence_folders,
)

__all__ = [
    "CLASSES",
    "DATASET",
    "FOLDS",
    "KINDS",
    "SEQUENCES",
    "TEST_SEQUENCES",
    "EndoVis17",
    "EndoVis17Test",
    "crop_border",
    "decode_test_mask",
    "fold_split",
    "instrument_type",
    "open_endovis17",
    "open_endovis17_test",
    "part_classes",
    "picture_box",
    "sequence_folders",
    "train_for_test",
]
