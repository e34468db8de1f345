"""The raw datasets that can be prepared: how each is opened, read and come by."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.endovis17 import EndoVis17, open_endovis17
from data_pipelines.endovis18 import EndoVis18, decode_colors, open_endovis18
from data_pipelines.folder import FolderSource, open_folder
from data_pipelines.frames import FrameSource, read_grey, read_image, read_label

_ENDOVIS15 = ("background", "shaft", "manipulator")


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
    """

    dataset: str
    task: str = ""
    masks: str = ""
    size: tuple[int, int] | None = (512, 640)
    encoding: str = "png"
    on_unknown: str = "error"
    allow_missing: bool = False


@dataclass(frozen=True)
class Layout:
    """A raw dataset.

    Attributes:
      tasks: the first is the default.
      masks: default name of the mask folders; "" where it cannot be chosen.
      size: default size of stored images.
      pictures: name of the folders with pictures.
      open: opens the raw folder.
      read_mask: decodes one mask file.
      obtain: where the data come from, and the tree that is expected.
    """

    tasks: tuple[str, ...]
    masks: str
    size: tuple[int, int] | None
    pictures: str
    open: Callable[[Path, Request], FrameSource]
    read_mask: Callable[[Path, Request], np.ndarray]
    obtain: str


def _open_folder(root: Path, request: Request) -> FrameSource:
    return open_folder(root, masks=request.masks, allow_missing=request.allow_missing)


def _open_endovis15(root: Path, request: Request) -> FrameSource:
    return open_folder(
        root,
        masks=request.masks,
        classes=_ENDOVIS15,
        allow_missing=request.allow_missing,
    )


def _open_endovis17(root: Path, request: Request) -> FrameSource:
    return open_endovis17(root, task=request.task)


def _open_endovis18(root: Path, request: Request) -> FrameSource:
    return open_endovis18(root, task=request.task, on_unknown=request.on_unknown)


def _read_endovis15(path: Path, request: Request) -> np.ndarray:
    return read_label(path, len(_ENDOVIS15))


def _read_grey(path: Path, request: Request) -> np.ndarray:
    return read_grey(path)


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
        open=_open_endovis17,
        read_mask=_read_grey,
        obtain=(
            "EndoVis 2017: register for the Robotic Instrument Segmentation "
            "Sub-Challenge 2017\non grand-challenge.org, accept its terms, and put the "
            "archives instrument_1_4_training\nand instrument_5_8_training (zips or "
            "unpacked) in RAW.\nExpected: "
            "RAW/[ARCHIVE/]instrument_dataset_K/left_frames/frameNNN.png and\n"
            "RAW/[ARCHIVE/]instrument_dataset_K/ground_truth/INSTRUMENT/frameNNN.png, "
            "K = 1 to 8"
        ),
    ),
    "endovis18": Layout(
        tasks=("parts", "all"),
        masks="",
        size=(512, 640),
        pictures="left_frames",
        open=_open_endovis18,
        read_mask=_read_endovis18,
        obtain=(
            "EndoVis 2018: register for the Robotic Scene Segmentation Sub-Challenge "
            "2018\non grand-challenge.org, accept its terms, and put the four releases "
            "and the repairs\n(zips or unpacked) in RAW; prepare the test archive "
            "apart, its sequences are others.\nExpected: "
            "RAW/[ARCHIVE/]seq_K/left_frames/frameNNN.png and\n"
            "RAW/[ARCHIVE/]seq_K/labels/frameNNN.png, K = 1 to 16 without 8"
        ),
    ),
    "endovis15": Layout(
        tasks=(),
        masks="parts",
        size=(512, 640),
        pictures="frames",
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
        masks="masks",
        size=None,
        pictures="frames",
        open=_open_folder,
        read_mask=_read_grey,
        obtain=(
            "CamVid: from the University of Cambridge's Machine Intelligence "
            "Laboratory; save\nits labels as class values.\n"
            + _FOLDER_TREE.format(masks="masks")
            + "\nand RAW/classes.json with the classes' names"
        ),
    ),
    "folder": Layout(
        tasks=(),
        masks="masks",
        size=None,
        pictures="frames",
        open=_open_folder,
        read_mask=_read_grey,
        obtain="Your own videos. " + _FOLDER_TREE.format(masks="masks"),
    ),
}
"""By name on the command line."""


def is_picture(path: Path, request: Request) -> bool:
    """Whether a file of the raw folder is a frame's picture."""
    return path.parent.name == DATASETS[request.dataset].pictures


def is_mask(path: Path, request: Request) -> bool:
    """Whether a file of the raw folder is a frame's mask."""
    if request.dataset == "endovis17":
        return path.parent.parent.name == "ground_truth"
    if request.dataset == "endovis18":
        return path.parent.name == "labels"
    return path.parent.name == request.masks


def source_files(
    source: FrameSource, root: Path, video: int, frame: int
) -> tuple[Path, ...]:
    """The files that a frame and its label are read from."""
    if isinstance(source, EndoVis18):
        return source.images[video][frame], source.masks[video][frame]
    if isinstance(source, FolderSource):
        files = source.images[video][frame], source.masks[video][frame]
        return tuple(path for path in files if path is not None)
    if not isinstance(source, EndoVis17):
        raise TypeError(f"{type(source).__name__}: no source of a raw dataset")
    name = source.videos[video].name
    folder = next(
        path for pattern in (name, f"*/{name}") for path in root.glob(pattern)
    )
    file = f"{source.videos[video].frames[frame]}.png"
    masks = sorted(folder.glob(f"ground_truth/*/{file}"), key=str)
    return folder / "left_frames" / file, *masks


def odd_pixels(source: FrameSource) -> str:
    """What the labels read so far held that is no class's, in words; "" for nothing."""
    if isinstance(source, EndoVis18) and source.unknown:
        return f"label pixels of no class's colour: {source.unknown}"
    if isinstance(source, EndoVis17) and source.stray:
        values = ", ".join(f"{value} ({n} pixels)" for value, n in source.stray.items())
        return f"mask values that are no part's: {values}"
    return ""
