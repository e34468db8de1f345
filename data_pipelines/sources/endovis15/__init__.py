"""EndoVis 2015, robotic part, saved in the folder layout."""

from pathlib import Path

import numpy as np

from data_pipelines.frames import ClassInfo, RawSource
from data_pipelines.sources.dataset import Dataset, Request, Selection
from data_pipelines.sources.folder.classes import class_color
from data_pipelines.sources.folder.dataset import TREE, names, open_folder_dataset
from data_pipelines.sources.folder.masks import read_mask

CLASSES = tuple(
    ClassInfo(name, class_color(index))
    for index, name in enumerate(("background", "shaft", "manipulator"))
)


def _open(root: Path, request: Request, selection: Selection) -> RawSource:
    return open_folder_dataset(root, request, selection, CLASSES)


def _read_mask(path: Path, request: Request) -> np.ndarray:
    return read_mask(path, CLASSES, request.mask_values)


DATASET = Dataset(
    name="endovis15",
    classes={"": CLASSES},
    protocol="global",
    obtain=(
        "EndoVis 2015: register for the Instrument Segmentation and Tracking "
        "Sub-Challenge\non grand-challenge.org, and save its clips as frames and "
        "masks of class values\n(0 background, 1 shaft, 2 manipulator).\n"
        + TREE.format(masks="parts")
    ),
    open=_open,
    names=names,
    read_mask=_read_mask,
    masks="parts",
    size=(512, 640),
)

__all__ = ["CLASSES", "DATASET"]
