"""Reads the training folders: `instrument_dataset_K/left_frames/frameNNN.png`.

Masks are in `instrument_dataset_K/ground_truth/INSTRUMENT/frameNNN.png`, one folder per
instrument. Their values are parts: 10 shaft, 20 wrist, 30 claspers, 40 probe. Frames
have a dark border, which is cropped from images and labels. Where masks of two
instruments overlap, the folder that is later in alphabetical order wins, in every task.
The folder "Other" is used only in the types task.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import (
    DataError,
    Video,
    read_gray,
    read_image,
)
from data_pipelines.io.images import first_pixel
from data_pipelines.io.pairs import is_skipped, numbered_folders, pairing_faults
from data_pipelines.sources.endovis17.tables import CLASSES, OTHER, instrument_type
from data_pipelines.sources.endovis17.tree import (
    PREFIX,
    crop_border,
    frame_files,
    sequence_faults,
    sequence_folders,
    unique_folders,
)

_PARTS = (0, 10, 20, 30, 40)
# Some tools change mask values by a few levels. A value nearer to 50 than to 40 is an
# error.
_LARGEST_PART = 44


class EndoVis17:
    """A `RawSource` of the training data for one task. Made by `open_endovis17`."""

    def __init__(
        self,
        task: str,
        videos: tuple[Video, ...],
        folders: tuple[Path, ...],
        masks: tuple[tuple[Path, ...], ...],
    ):
        self.task = task
        self.classes = CLASSES[task]
        self.videos = videos
        self._folders = folders
        self._masks = masks
        self._unknown: dict[tuple[int, int], dict[Path, dict[str, int]]] = {}

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns pixel counts by mask value that is not a part, for each mask file.

        In the parts task, such a value is rounded to the nearest multiple of ten; in
        the other tasks, any value above 0 is the instrument.
        """
        return self._unknown.get((video, frame), {})

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of the image and the masks, sorted by folder."""
        name = f"{self.videos[video].frames[frame]}.png"
        masks = (folder / name for folder in self._masks[video])
        return self._folders[video] / "left_frames" / name, *masks

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image without its border, uint8 `[H, W, 3]`."""
        return crop_border(read_image(self.files(video, frame)[0]))

    def label(self, video: int, frame: int) -> np.ndarray:
        """Returns the classes of the task, uint8 `[H, W]`.

        Raises:
            DataError: a mask cannot be decoded or, in the parts task, a value is not
                near that of a part.
        """
        label: np.ndarray | None = None
        unknown: dict[Path, dict[str, int]] = {}
        for path in self.files(video, frame)[1:]:
            values = read_gray(path)
            if label is None:
                label = np.zeros(values.shape, np.uint8)
            counts = np.bincount(values.ravel(), minlength=256)
            counts[list(_PARTS)] = 0
            if counts.any():
                unknown[path] = {str(v): int(counts[v]) for v in counts.nonzero()[0]}
            kind = instrument_type(path.parent.name)
            if self.task == "types":
                label[values > 0] = kind
            elif self.task == "binary" and kind != OTHER:
                label[values > 0] = 1
            elif kind != OTHER:
                parts = part_classes(values, path)
                np.copyto(label, parts, where=parts > 0)
        assert label is not None, "a video without mask folders"
        self._unknown[video, frame] = unknown
        return crop_border(label)


def open_endovis17(
    root: str | Path,
    *,
    task: str = "types",
    sequences: Sequence[int] | None = None,
) -> EndoVis17:
    """Opens the training data as distributed by the challenge.

    Folder names, file names and image headers of all frames and masks are checked here;
    pixels are decoded on demand.

    Args:
        root: contains the folders `instrument_dataset_K`, directly or in the folders of
            the archives.
        task: "types" (8 classes), "parts" (4) or "binary" (2); see `CLASSES`.
        sequences: the numbers K to open, in this order; None: all.

    Returns:
        A source whose videos are named instrument_dataset_K.

    Raises:
        FileNotFoundError: `root` is not a folder.
        ValueError: `task` is unknown.
        DataError: one line for every error found in the folders.
    """
    root = Path(root)
    if task not in CLASSES:
        raise ValueError(f"task={task!r}: must be one of {', '.join(CLASSES)}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    faults: list[str] = []
    existing = unique_folders(sequence_folders(root), faults)
    if not existing:
        faults.append(f"{root}: no folders instrument_dataset_1, 2, ... in it")
    selected = numbered_folders(root, PREFIX, existing, sequences, faults)
    videos, folders, masks = [], [], []
    for folder in selected.values():
        frames = frame_files(folder / "left_frames", faults)
        instruments = _instrument_folders(folder / "ground_truth", faults)
        labels = [frame_files(instrument, faults) for instrument in instruments]
        for instrument, files in zip(instruments, labels, strict=True):
            faults += pairing_faults(frames, files, instrument)
        faults += sequence_faults(frames, labels)
        videos.append(Video(folder.name, tuple(frames)))
        folders.append(folder)
        masks.append(tuple(instruments))
    if faults:
        raise DataError(faults)
    return EndoVis17(task, tuple(videos), tuple(folders), tuple(masks))


def part_classes(values: np.ndarray, path: Path) -> np.ndarray:
    """Converts stored part values to classes 0..3; the probe (40) becomes background.

    Args:
        values: uint8 `[H, W]`.
        path: the file, for error messages.

    Raises:
        DataError: a value is not near that of a part.
    """
    if values.max() > _LARGEST_PART:
        row, column = first_pixel(values == values.max())
        raise DataError(
            [
                f"{path}: mask value {values.max()} at row {row}, column {column} is "
                f"not a part {_PARTS}; replace the file with the original"
            ]
        )
    table = (np.arange(256) + 5) // 10
    table[table > 3] = 0
    return table.astype(np.uint8)[values]


def _instrument_folders(truth: Path, faults: list[str]) -> list[Path]:
    folders = []
    for path in sorted(truth.glob("*"), key=lambda path: path.name):
        if is_skipped(path.name) or not path.is_dir():
            continue
        try:
            instrument_type(path.name)
        except DataError as error:
            faults += [f"{truth}: {line}" for line in error.faults]
            continue
        folders.append(path)
    if not folders:
        faults.append(f"{truth}: no instrument folders; unpack the ground truth there")
    return folders
