"""The description of a user's own videos; other datasets share this folder layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import ClassInfo, RawSource, read_gray
from data_pipelines.sources.dataset import Dataset, Request, Selection
from data_pipelines.sources.folder.masks import read_mask
from data_pipelines.sources.folder.reader import named_classes, open_folder
from data_pipelines.sources.folder.tree import video_names

TREE = "Expected: RAW/VIDEO/frames/NAME.jpg (or png), RAW/VIDEO/{masks}/NAME.png"


def names(root: Path, request: Request) -> list[str]:
    """Returns the names of the videos in a folder of this layout."""
    return video_names(root)


def open_folder_dataset(
    root: Path,
    request: Request,
    selection: Selection,
    classes: Sequence[str | ClassInfo] | None,
) -> RawSource:
    """Opens a folder of this layout; `classes` is None if the folder defines them."""
    return open_folder(
        root,
        masks=request.masks,
        videos=selection.videos,
        classes=classes,
        allow_missing=request.allow_missing,
        mask_values=request.mask_values,
    )


def _open(root: Path, request: Request, selection: Selection) -> RawSource:
    classes = None
    if selection.num_classes and not (root / "classes.json").is_file():
        classes = [f"class_{i}" for i in range(selection.num_classes)]
    return open_folder_dataset(root, request, selection, classes)


def _read_mask(path: Path, request: Request) -> np.ndarray:
    classes = named_classes(path.parents[2])
    if classes or request.mask_values == "binary":
        return read_mask(path, classes, request.mask_values)
    return read_gray(path)


DATASET = Dataset(
    name="folder",
    classes={"": ()},
    protocol="global",
    obtain="Your own videos. " + TREE.format(masks="masks"),
    open=_open,
    names=names,
    read_mask=_read_mask,
    masks="masks",
    published=False,
)
