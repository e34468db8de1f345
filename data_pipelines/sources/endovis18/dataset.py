"""The description of EndoVis 2018."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import RawSource, read_image
from data_pipelines.sources.dataset import Dataset, Division, Request, Selection
from data_pipelines.sources.endovis17.dataset import selected_numbers
from data_pipelines.sources.endovis18.raw import open_endovis18, sequence_numbers
from data_pipelines.sources.endovis18.tables import (
    CLASSES,
    SEQUENCES,
    SPLITS,
    decode_colors,
)


def _open(root: Path, request: Request, selection: Selection) -> RawSource:
    return open_endovis18(
        root,
        task=request.task,
        sequences=selected_numbers(selection),
        on_unknown=request.on_unknown,
        subset=request.subset,
    )


def _names(root: Path, request: Request) -> list[str]:
    prefix = "test_" if request.subset == "test" else ""
    return [f"{prefix}seq_{k}" for k in sequence_numbers(root)]


def _read_mask(path: Path, request: Request) -> np.ndarray:
    return decode_colors(read_image(path), path, on_unknown=request.on_unknown)[0]


def _is_mask(path: Path, request: Request) -> bool:
    return path.parent.name == "labels"


def _divisions(videos: Sequence[str]) -> dict[str, Division]:
    return {
        name: Division(
            tuple(f"seq_{k}" for k in split.train),
            tuple(f"seq_{k}" for k in split.val)
            # The challenge's own division validates on the test archive.
            or tuple(f"test_seq_{k}" for k in split.test),
            in_archive=not split.val,
        )
        for name, split in SPLITS.items()
    }


def _remarks(videos: Collection[str], files: Iterable[str]) -> list[str]:
    if not {"seq_1", "seq_4"} & {*videos} or any("repairs" in path for path in files):
        return []
    return [
        "no repairs found; that archive corrects 7 labels of seq_1 and seq_4: add it "
        "to the other archives"
    ]


DATASET = Dataset(
    name="endovis18",
    classes={task: CLASSES[task] for task in ("parts", "all")},
    protocol="challenge",
    obtain=(
        "EndoVis 2018: register for the Robotic Scene Segmentation Sub-Challenge "
        "2018\non grand-challenge.org, accept its terms, and put the four releases "
        "and the repairs\n(zips or unpacked) in RAW; prepare the test archive "
        "separately\nwith --subset test, because its sequences have the same "
        "numbers.\nExpected: "
        "RAW/[ARCHIVE/]seq_K/left_frames/frameNNN.png and\n"
        "RAW/[ARCHIVE/]seq_K/labels/frameNNN.png, K = 1 to 16 without 8"
    ),
    open=_open,
    names=_names,
    read_mask=_read_mask,
    is_mask=_is_mask,
    pictures="left_frames",
    subsets=("train", "test"),
    size=(512, 640),
    # Sources disagree about the number of frames in the test archive.
    frames={"train": {f"seq_{k}": 149 for k in SEQUENCES}},
    remarks=_remarks,
    divisions=_divisions,
)
