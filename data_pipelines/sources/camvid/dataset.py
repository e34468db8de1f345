"""The description of CamVid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import RawSource
from data_pipelines.sources.camvid.raw import (
    CLASSES,
    SPLITS,
    decode_mask,
    open_camvid,
    video_names,
)
from data_pipelines.sources.dataset import Dataset, Division, Request, Selection


def _open(root: Path, request: Request, selection: Selection) -> RawSource:
    if selection.videos is None:
        return open_camvid(root)
    splits = {name.partition("_")[0] for name in selection.videos}
    return open_camvid(root, splits=[split for split in SPLITS if split in splits])


def _names(root: Path, request: Request) -> list[str]:
    return video_names(root)


def _read_mask(path: Path, request: Request) -> np.ndarray:
    return decode_mask(path)


def _divisions(videos: Sequence[str]) -> dict[str, Division]:
    train, val = (
        tuple(name for name in videos if name.startswith(f"{split}_"))
        for split in SPLITS[:2]
    )
    return {"official": Division(train, val)}


DATASET = Dataset(
    name="camvid",
    classes={"": CLASSES},
    protocol="global",
    obtain=(
        "CamVid: from the University of Cambridge's Machine Intelligence "
        "Laboratory, or in\nthe 11-class form of the SegNet tutorial.\nExpected: "
        "RAW/SPLIT/frames/SEQUENCE_NUMBER.jpg (or png) and\n"
        "RAW/SPLIT/masks/SEQUENCE_NUMBER.png (0 sky to 10 bicyclist, 11 "
        "unlabeled),\nSPLIT = train, val, test"
    ),
    open=_open,
    names=_names,
    read_mask=_read_mask,
    divisions=_divisions,
)
