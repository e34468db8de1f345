"""Your own videos as a dataset; others may have the same layout."""

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
    """The videos of a folder in this layout."""
    return video_names(root)


def open_folder_dataset(
    root: Path,
    request: Request,
    chosen: Selection,
    classes: Sequence[str | ClassInfo] | None,
) -> RawSource:
    """Opens a folder in this layout, whose classes may be known."""
    return open_folder(
        root,
        masks=request.masks,
        videos=chosen.videos,
        classes=classes,
        allow_missing=request.allow_missing,
        mask_values=request.mask_values,
    )


def _open(root: Path, request: Request, chosen: Selection) -> RawSource:
    classes = None
    if chosen.num_classes and not (root / "classes.json").is_file():
        classes = [f"class_{i}" for i in range(chosen.num_classes)]
    return open_folder_dataset(root, request, chosen, classes)


def _read_mask(path: Path, request: Request) -> np.ndarray:
    named = named_classes(path.parents[2])
    if named or request.mask_values == "binary":
        return read_mask(path, named, request.mask_values)
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
