"""The description of EndoVis 2017."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import RawSource, read_gray
from data_pipelines.sources.dataset import Dataset, Division, Request, Selection
from data_pipelines.sources.endovis17.raw import open_endovis17, part_classes
from data_pipelines.sources.endovis17.tables import (
    CLASSES,
    FOLDS,
    OTHER,
    SEQUENCES,
    TEST_SEQUENCES,
    fold_split,
    instrument_type,
)
from data_pipelines.sources.endovis17.test_set import (
    KINDS,
    decode_test_mask,
    open_endovis17_test,
)
from data_pipelines.sources.endovis17.tree import PREFIX, sequence_folders


def selected_numbers(selection: Selection) -> list[int] | None:
    """Returns the numbers at the end of the selected videos' names; None: all."""
    if selection.videos is None:
        return None
    matches = (re.search(r"\d+$", name) for name in selection.videos)
    return [int(match[0]) for match in matches if match]


def _open(root: Path, request: Request, selection: Selection) -> RawSource:
    sequences = selected_numbers(selection)
    if request.subset == "test":
        return open_endovis17_test(root, task=request.task, sequences=sequences)
    return open_endovis17(root, task=request.task, sequences=sequences)


def _names(root: Path, request: Request) -> list[str]:
    return [path.name for _, path in sequence_folders(root)]


def _read_mask(path: Path, request: Request) -> np.ndarray:
    values = read_gray(path)
    if request.subset == "test":
        return decode_test_mask(values, path, request.task)
    if request.task == "parts" and instrument_type(path.parent.name) != OTHER:
        return part_classes(values, path)
    return values


def _is_mask(path: Path, request: Request) -> bool:
    if request.subset == "test":
        return path.parent.name == KINDS[request.task]
    return path.parent.parent.name == "ground_truth"


def _divisions(videos: Sequence[str]) -> dict[str, Division]:
    splits = [fold_split(fold) for fold in range(len(FOLDS))]
    return {
        f"fold {fold}": Division(_videos(train), _videos(val))
        for fold, (train, val) in enumerate(splits)
    }


def _videos(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{PREFIX}{k}" for k in numbers)


DATASET = Dataset(
    name="endovis17",
    classes={task: CLASSES[task] for task in ("types", "parts", "binary")},
    protocol="challenge",
    obtain=(
        "EndoVis 2017: register for the Robotic Instrument Segmentation "
        "Sub-Challenge 2017\non grand-challenge.org, accept its terms, and put the "
        "archives instrument_1_4_training\nand instrument_5_8_training (zips or "
        "unpacked) in RAW.\nExpected: "
        "RAW/[ARCHIVE/]instrument_dataset_K/left_frames/frameNNN.png and\n"
        "RAW/[ARCHIVE/]instrument_dataset_K/ground_truth/INSTRUMENT/frameNNN.png, "
        "K = 1 to 8.\nFor --subset test: the archives instrument_*_testing and "
        "their ground truth\ninstrument_2017_test in a separate RAW.\n"
        "Expected: RAW/[ARCHIVE/]instrument_dataset_K/left_frames/frameNNN.png "
        "and\n"
        "RAW/[ARCHIVE/]instrument_dataset_K/[gt/]{Binary,Parts,Type}Segmentation/"
        "frameNNN.png,\nK = 1 to 10"
    ),
    open=_open,
    names=_names,
    read_mask=_read_mask,
    is_mask=_is_mask,
    pictures="left_frames",
    subsets=("train", "test"),
    size=(512, 640),
    frames={
        "train": dict.fromkeys(_videos(SEQUENCES), 225),
        "test": {f"{PREFIX}{k}": 75 if k <= 8 else 300 for k in TEST_SEQUENCES},
    },
    divisions=_divisions,
    folds=len(FOLDS),
)
