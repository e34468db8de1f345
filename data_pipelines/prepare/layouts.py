"""The raw datasets that can be prepared: how each is opened, read and come by."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.frames import ClassInfo, RawSource, read_gray, read_image
from data_pipelines.sources.camvid import SPLITS, decode_mask, open_camvid
from data_pipelines.sources.endovis17 import (
    KINDS,
    decode_test_mask,
    instrument_type,
    open_endovis17,
    open_endovis17_test,
    part_classes,
    sequence_folders,
)
from data_pipelines.sources.endovis17.tables import OTHER
from data_pipelines.sources.endovis18 import (
    decode_colors,
    open_endovis18,
    sequence_numbers,
)
from data_pipelines.sources.folder import (
    MaskValues,
    named_classes,
    open_folder,
    read_mask,
    video_names,
)
from data_pipelines.sources.folder.classes import class_color

ENDOVIS15_CLASSES = ("background", "shaft", "manipulator")


@dataclass(frozen=True)
class Request:
    """What is to be prepared.

    Attributes:
      dataset: one of `DATASETS`.
      task: which classes, where the dataset has several tasks; else "".
      masks: name of the mask folders, where the dataset has any of its own; else "".
      size: (height, width) that images are stored at; None keeps theirs.
      encoding: of stored images, "png" or "jpeg".
      on_unknown: what becomes of label colours of no class (EndoVis 2018): "error",
        "ignore" or "nearest".
      allow_missing: accept frames without a mask (datasets in the folder layout).
      subset: "train", or "test" for the test archives of EndoVis 2017 and 2018.
      mask_values: what a mask's values mean (datasets in the folder layout), see
        `data_pipelines.sources.folder.masks`.
    """

    dataset: str
    task: str = ""
    masks: str = ""
    size: tuple[int, int] | None = (512, 640)
    encoding: str = "png"
    on_unknown: str = "error"
    allow_missing: bool = False
    subset: str = "train"
    mask_values: MaskValues = "class"


@dataclass(frozen=True)
class Chosen:
    """What a run needs of a raw dataset; the rest of the folder is not looked at.

    Attributes:
      videos: their names; None: all.
      num_classes: how many classes, where nothing in the folder says it.
    """

    videos: Sequence[str] | None = None
    num_classes: int | None = None


ALL = Chosen()


@dataclass(frozen=True)
class Layout:
    """A raw dataset.

    Attributes:
      tasks: the first is the default.
      masks: default name of the mask folders; "" where it cannot be chosen.
      size: default size of stored images.
      pictures: name of the folders with pictures.
      names: the videos of the raw folder by name, without opening them.
      open: opens the raw folder.
      read_mask: decodes one mask file.
      obtain: where the data come from, and the tree that is expected.
      subsets: which there are.
    """

    tasks: tuple[str, ...]
    masks: str
    size: tuple[int, int] | None
    pictures: str
    names: Callable[[Path, Request], list[str]]
    open: Callable[[Path, Request, Chosen], RawSource]
    read_mask: Callable[[Path, Request], object]
    obtain: str
    subsets: tuple[str, ...] = ("train",)


def _names_folder(root: Path, request: Request) -> list[str]:
    return video_names(root)


def _open_folder(root: Path, request: Request, chosen: Chosen = ALL) -> RawSource:
    classes = None
    if chosen.num_classes and not (root / "classes.json").is_file():
        classes = [f"class_{i}" for i in range(chosen.num_classes)]
    return _open_own(root, request, chosen, classes)


def _open_endovis15(root: Path, request: Request, chosen: Chosen = ALL) -> RawSource:
    return _open_own(root, request, chosen, ENDOVIS15_CLASSES)


def _open_own(
    root: Path, request: Request, chosen: Chosen, classes: Sequence[str] | None
) -> RawSource:
    return open_folder(
        root,
        masks=request.masks,
        videos=chosen.videos,
        classes=classes,
        allow_missing=request.allow_missing,
        mask_values=request.mask_values,
    )


def _names_camvid(root: Path, request: Request) -> list[str]:
    """Prefixes of names: videos are runs without a gap, known once they are opened."""
    return [f"{split}_" for split in SPLITS if (root / split / "frames").is_dir()]


def _open_camvid(root: Path, request: Request, chosen: Chosen = ALL) -> RawSource:
    if chosen.videos is None:
        return open_camvid(root)
    wanted = {name.partition("_")[0] for name in chosen.videos}
    return open_camvid(root, splits=[split for split in SPLITS if split in wanted])


def _names_endovis17(root: Path, request: Request) -> list[str]:
    return [path.name for _, path in sequence_folders(root)]


def _open_endovis17(root: Path, request: Request, chosen: Chosen = ALL) -> RawSource:
    sequences = _numbers(chosen)
    if request.subset == "test":
        return open_endovis17_test(root, task=request.task, sequences=sequences)
    return open_endovis17(root, task=request.task, sequences=sequences)


def _names_endovis18(root: Path, request: Request) -> list[str]:
    prefix = "test_" if request.subset == "test" else ""
    return [f"{prefix}seq_{k}" for k in sequence_numbers(root)]


def _open_endovis18(root: Path, request: Request, chosen: Chosen = ALL) -> RawSource:
    return open_endovis18(
        root,
        task=request.task,
        sequences=_numbers(chosen),
        on_unknown=request.on_unknown,
        subset=request.subset,
    )


def _numbers(chosen: Chosen) -> list[int] | None:
    """The numbers that the wanted videos' names end in."""
    if chosen.videos is None:
        return None
    found = (re.search(r"\d+$", name) for name in chosen.videos)
    return [int(match[0]) for match in found if match]


def _read_endovis15(path: Path, request: Request) -> np.ndarray:
    classes = [
        ClassInfo(name, class_color(i)) for i, name in enumerate(ENDOVIS15_CLASSES)
    ]
    return read_mask(path, classes, request.mask_values)


def _read_folder(path: Path, request: Request) -> np.ndarray:
    named = named_classes(path.parents[2])
    if named or request.mask_values == "binary":
        return read_mask(path, named, request.mask_values)
    return read_gray(path)


def _read_camvid(path: Path, request: Request) -> np.ndarray:
    return decode_mask(path)


def _read_endovis17(path: Path, request: Request) -> np.ndarray:
    values = read_gray(path)
    if request.subset == "test":
        return decode_test_mask(values, path, request.task)
    if request.task == "parts" and instrument_type(path.parent.name) != OTHER:
        return part_classes(values, path)
    return values


def _read_endovis18(path: Path, request: Request) -> np.ndarray:
    return decode_colors(read_image(path), path, on_unknown=request.on_unknown)[0]


_FOLDER_TREE = (
    "Expected: RAW/VIDEO/frames/NAME.jpg (or png), RAW/VIDEO/{masks}/NAME.png"
)

DATASETS: dict[str, Layout] = {
    "endovis17": Layout(
        tasks=("types", "parts", "binary"),
        masks="",
        size=(512, 640),
        pictures="left_frames",
        names=_names_endovis17,
        open=_open_endovis17,
        read_mask=_read_endovis17,
        subsets=("train", "test"),
        obtain=(
            "EndoVis 2017: register for the Robotic Instrument Segmentation "
            "Sub-Challenge 2017\non grand-challenge.org, accept its terms, and put the "
            "archives instrument_1_4_training\nand instrument_5_8_training (zips or "
            "unpacked) in RAW.\nExpected: "
            "RAW/[ARCHIVE/]instrument_dataset_K/left_frames/frameNNN.png and\n"
            "RAW/[ARCHIVE/]instrument_dataset_K/ground_truth/INSTRUMENT/frameNNN.png, "
            "K = 1 to 8.\nFor --subset test: the archives instrument_*_testing and "
            "their ground truth\ninstrument_2017_test in a RAW of their own.\n"
            "Expected: RAW/[ARCHIVE/]instrument_dataset_K/left_frames/frameNNN.png "
            "and\n"
            "RAW/[ARCHIVE/]instrument_dataset_K/[gt/]{Binary,Parts,Type}Segmentation/"
            "frameNNN.png,\nK = 1 to 10"
        ),
    ),
    "endovis18": Layout(
        tasks=("parts", "all"),
        masks="",
        size=(512, 640),
        pictures="left_frames",
        names=_names_endovis18,
        open=_open_endovis18,
        read_mask=_read_endovis18,
        subsets=("train", "test"),
        obtain=(
            "EndoVis 2018: register for the Robotic Scene Segmentation Sub-Challenge "
            "2018\non grand-challenge.org, accept its terms, and put the four releases "
            "and the repairs\n(zips or unpacked) in RAW; prepare the test archive "
            "apart\nwith --subset test, its sequences are others.\nExpected: "
            "RAW/[ARCHIVE/]seq_K/left_frames/frameNNN.png and\n"
            "RAW/[ARCHIVE/]seq_K/labels/frameNNN.png, K = 1 to 16 without 8"
        ),
    ),
    "endovis15": Layout(
        tasks=(),
        masks="parts",
        size=(512, 640),
        pictures="frames",
        names=_names_folder,
        open=_open_endovis15,
        read_mask=_read_endovis15,
        obtain=(
            "EndoVis 2015: register for the Instrument Segmentation and Tracking "
            "Sub-Challenge\non grand-challenge.org, and save its clips as frames and "
            "masks of class values\n(0 background, 1 shaft, 2 manipulator).\n"
            + _FOLDER_TREE.format(masks="parts")
        ),
    ),
    "camvid": Layout(
        tasks=(),
        masks="",
        size=None,
        pictures="frames",
        names=_names_camvid,
        open=_open_camvid,
        read_mask=_read_camvid,
        obtain=(
            "CamVid: from the University of Cambridge's Machine Intelligence "
            "Laboratory, or in\nthe 11-class form of the SegNet tutorial.\nExpected: "
            "RAW/SPLIT/frames/SEQUENCE_NUMBER.jpg (or png) and\n"
            "RAW/SPLIT/masks/SEQUENCE_NUMBER.png (0 sky to 10 bicyclist, 11 "
            "unlabelled),\nSPLIT = train, val, test"
        ),
    ),
    "folder": Layout(
        tasks=(),
        masks="masks",
        size=None,
        pictures="frames",
        names=_names_folder,
        open=_open_folder,
        read_mask=_read_folder,
        obtain="Your own videos. " + _FOLDER_TREE.format(masks="masks"),
    ),
}
"""By name on the command line."""

OWN = ("folder", "endovis15")
"""Those in the layout of a user's own folder, whose masks may mean several things."""


def is_picture(path: Path, request: Request) -> bool:
    """Whether a file of the raw folder is a frame's picture."""
    return path.parent.name == DATASETS[request.dataset].pictures


def is_mask(path: Path, request: Request) -> bool:
    """Whether a file of the raw folder is a frame's mask."""
    if request.dataset == "endovis17" and request.subset == "test":
        return path.parent.name == KINDS[request.task]
    if request.dataset == "endovis17":
        return path.parent.parent.name == "ground_truth"
    if request.dataset == "endovis18":
        return path.parent.name == "labels"
    return path.parent.name == (request.masks or "masks")
