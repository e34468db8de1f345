"""Reads the training folders: `instrument_dataset_K/left_frames/frameNNN.png`.

Masks lie in `instrument_dataset_K/ground_truth/<instrument>/frameNNN.png`, one folder
an instrument, whose values are parts: 10 shaft, 20 wrist, 30 claspers, 40 probe. The
picture is a part of the frame, within a dark border; images and labels come cropped to
it. Where masks of two instruments overlap, the folder that sorts later by name wins,
in every task. The folder "Other" counts in the types task only.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import (
    DataError,
    Video,
    read_gray,
    read_image,
)
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
# Pillow writes and some tools re-save masks with values a few levels off; anything
# that is nearer to 50 than to 40 is no part.
_LARGEST_PART = 44


class EndoVis17:
    """The training data for one task; a `RawSource`. Made by `open_endovis17`."""

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
        self._stray: dict[tuple[int, int], dict[Path, dict[str, int]]] = {}

    @property
    def stray(self) -> dict[int, int]:
        """Pixels by mask value that is no part's, over the labels read so far.

        In the parts task such a value counts as the nearest multiple of ten; in the
        others any value above 0 is the instrument.
        """
        total: Counter[int] = Counter()
        for files in list(self._stray.values()):
            for values in files.values():
                total.update({int(value): count for value, count in values.items()})
        return dict(sorted(total.items()))

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Of each mask file, once the label was read: pixels by `stray` value."""
        return self._stray.get((video, frame), {})

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """The picture and its masks, sorted by folder."""
        name = f"{self.videos[video].frames[frame]}.png"
        masks = (folder / name for folder in self._masks[video])
        return self._folders[video] / "left_frames" / name, *masks

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture without its border, uint8 `[H, W, 3]`."""
        return crop_border(read_image(self.files(video, frame)[0]))

    def label(self, video: int, frame: int) -> np.ndarray:
        """The task's classes, uint8 `[H, W]`.

        Raises:
            DataError: a mask cannot be read or, in the parts task, holds a value that
                is near no part's.
        """
        label: np.ndarray | None = None
        stray: dict[Path, dict[str, int]] = {}
        for path in self.files(video, frame)[1:]:
            values = read_gray(path)
            if label is None:
                label = np.zeros(values.shape, np.uint8)
            counts = np.bincount(values.ravel(), minlength=256)
            counts[list(_PARTS)] = 0
            if counts.any():
                stray[path] = {str(v): int(counts[v]) for v in counts.nonzero()[0]}
            kind = instrument_type(path.parent.name)
            if self.task == "types":
                label[values > 0] = kind
            elif self.task == "binary" and kind != OTHER:
                label[values > 0] = 1
            elif kind != OTHER:
                parts = part_classes(values, path)
                np.copyto(label, parts, where=parts > 0)
        assert label is not None, "a video without mask folders"
        self._stray[video, frame] = stray
        return crop_border(label)


def open_endovis17(
    root: str | Path,
    *,
    task: str = "types",
    sequences: Sequence[int] | None = None,
) -> EndoVis17:
    """Opens the training data of the challenge as they are distributed.

    Folder names, file names and image headers of every frame and mask are checked
    here; pixels are decoded when asked for.

    Args:
        root: holds the folders `instrument_dataset_K`, or the archives' folders with
            these in them.
        task: "types" (8 classes), "parts" (4) or "binary" (2), see `CLASSES`.
        sequences: the K wanted, in this order; all that are there if not given.

    Returns:
        The source; its videos are called instrument_dataset_K.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: there is no such task.
        DataError: one line for every fault found in the folders.
    """
    root = Path(root)
    if task not in CLASSES:
        raise ValueError(f"task={task!r}: must be one of {', '.join(CLASSES)}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    faults: list[str] = []
    found = unique_folders(sequence_folders(root), faults)
    if not found:
        faults.append(f"{root}: no folders instrument_dataset_1, 2, ... in it")
    wanted = numbered_folders(root, PREFIX, found, sequences, faults)
    videos, folders, masks = [], [], []
    for folder in wanted.values():
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
    """Stored part values to classes 0..3; the probe, 40, is no part of the task.

    Raises:
        DataError: a value is near no part's; names it, the file and the pixel.
    """
    if values.max() > _LARGEST_PART:
        row, column = np.unravel_index(values.argmax(), values.shape)
        raise DataError(
            [
                f"{path}: mask value {values.max()} at row {row}, column {column} is "
                f"no part {_PARTS}; replace the file by the challenge's"
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
