"""Reads the challenge's folders: `instrument_dataset_K/left_frames/frameNNN.png`.

Masks lie in `instrument_dataset_K/ground_truth/<instrument>/frameNNN.png`, one folder
an instrument, whose values are parts: 10 shaft, 20 wrist, 30 claspers, 40 probe. The
picture is a part of the frame, within a dark border; images and labels come cropped to
it. Where masks of two instruments overlap, the folder that sorts later by name wins,
in every task. The folder "Other" counts in the types task only.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.endovis17.tables import CLASSES, OTHER, instrument_type
from data_pipelines.folder import natural_key
from data_pipelines.frames import (
    DataError,
    Video,
    read_grey,
    read_image,
    read_size,
)

_PARTS = (0, 10, 20, 30, 40)
# Pillow writes and some tools re-save masks with values a few levels off; anything
# that is nearer to 50 than to 40 is no part.
_LARGEST_PART = 44


class EndoVis17:
    """The raw data for one task; a `FrameSource`. Made by `open_endovis17`."""

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
        self._stray: dict[tuple[int, int], Counter[int]] = {}

    @property
    def stray(self) -> dict[int, int]:
        """Pixels by mask value that is no part's, over the labels read so far.

        In the parts task such a value counts as the nearest multiple of ten; in the
        others any value above 0 is the instrument.
        """
        total = sum(list(self._stray.values()), Counter())
        return dict(sorted(total.items()))

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture without its border, uint8 `[H, W, 3]`."""
        name = f"{self.videos[video].frames[frame]}.png"
        return _cropped(read_image(self._folders[video] / "left_frames" / name))

    def label(self, video: int, frame: int) -> np.ndarray:
        """The task's classes, uint8 `[H, W]`.

        Raises:
          DataError: a mask cannot be read or, in the parts task, holds a value that is
            near no part's.
        """
        name = f"{self.videos[video].frames[frame]}.png"
        folders = self._masks[video]
        masks = [_cropped(read_grey(folder / name)) for folder in folders]
        label = np.zeros(masks[0].shape, np.uint8)
        counts = np.zeros(256, np.int64)
        for folder, values in zip(folders, masks, strict=True):
            counts += np.bincount(values.ravel(), minlength=256)
            kind = instrument_type(folder.name)
            if self.task == "types":
                label[values > 0] = kind
            elif self.task == "binary" and kind != OTHER:
                label[values > 0] = 1
            elif kind != OTHER:
                parts = _part_classes(values, folder / name)
                np.copyto(label, parts, where=parts > 0)
        counts[list(_PARTS)] = 0
        self._stray[video, frame] = Counter(
            {int(value): int(counts[value]) for value in counts.nonzero()[0]}
        )
        return label


def open_endovis17(
    root: str | Path,
    *,
    task: str = "types",
    sequences: Sequence[int] | None = None,
) -> EndoVis17:
    """Opens the training data of the challenge as it is distributed.

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
    found = _sequence_folders(root, faults)
    wanted = tuple(found) if sequences is None else tuple(dict.fromkeys(sequences))
    faults += [
        f"{root}: no folder instrument_dataset_{k}; there are {tuple(found)}"
        for k in wanted
        if k not in found
    ]
    videos, folders, masks = [], [], []
    for folder in (found[k] for k in wanted if k in found):
        frames = _frame_names(folder / "left_frames", faults)
        instruments = _instrument_folders(folder / "ground_truth", faults)
        for instrument in instruments:
            faults += _pairing_faults(folder / "left_frames", frames, instrument)
        faults += _size_faults(folder, frames, instruments)
        videos.append(Video(folder.name, tuple(frames)))
        folders.append(folder)
        masks.append(tuple(instruments))
    if faults:
        raise DataError(faults)
    return EndoVis17(task, tuple(videos), tuple(folders), tuple(masks))


def picture_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Where the picture is in a frame of `height` x `width`.

    In the challenge's frames of 1080 x 1920 it is 1024 x 1280 at row 28, column 320;
    frames of another size in the same proportions are taken as reduced, and frames
    with the picture's own proportions, 4:5, as cropped already.

    Returns:
      (top, left, height, width) in pixels.

    Raises:
      DataError: the frame has other proportions.
    """
    if abs(5 * height - 4 * width) <= 4:
        return 0, 0, height, width
    # Allows for both sides of the frame having been rounded to whole pixels.
    if abs(16 * height - 9 * width) > 12.5:
        raise DataError(
            [
                f"frame of {width}x{height} (width x height) is neither 1920x1080 nor "
                "a 1280x1024 picture nor either at another size"
            ]
        )
    rows, columns = round(1024 * height / 1080), round(1280 * width / 1920)
    return round(28 / 1024 * rows), round(320 / 1280 * columns), rows, columns


def _cropped(array: np.ndarray) -> np.ndarray:
    top, left, height, width = picture_box(*array.shape[:2])
    return np.ascontiguousarray(array[top : top + height, left : left + width])


def _part_classes(values: np.ndarray, path: Path) -> np.ndarray:
    """Stored part values to classes 0..3; the probe, 40, is no part of the task."""
    if values.max() > _LARGEST_PART:
        row, column = np.unravel_index(values.argmax(), values.shape)
        raise DataError(
            [
                f"{path}: mask value {values.max()} at row {row}, column {column} of "
                f"the picture is no part {_PARTS}; replace the file by the challenge's"
            ]
        )
    table = (np.arange(256) + 5) // 10
    table[table > 3] = 0
    return table.astype(np.uint8)[values]


def _sequence_folders(root: Path, faults: list[str]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted([*root.glob("*"), *root.glob("*/*")], key=str):
        match = re.fullmatch(r"instrument_dataset_(\d+)", path.name)
        if match is None or not path.is_dir():
            continue
        number = int(match[1])
        if number in found:
            faults.append(
                f"{path}: sequence {number} again, first {found[number]}; keep one"
            )
        found.setdefault(number, path)
    if not found:
        faults.append(f"{root}: no folders instrument_dataset_1, 2, ... in it")
    return dict(sorted(found.items()))


def _frame_names(folder: Path, faults: list[str]) -> list[str]:
    names = sorted(
        (path.stem for path in folder.glob("*.png") if path.name[0] != "."),
        key=natural_key,
    )
    if not names:
        faults.append(f"{folder}: no frames; it must hold frame000.png, ...")
    return names


def _instrument_folders(truth: Path, faults: list[str]) -> list[Path]:
    folders = []
    for path in sorted(truth.glob("*"), key=lambda path: path.name):
        if path.name.startswith(".") or not path.is_dir():
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


def _pairing_faults(left: Path, frames: list[str], folder: Path) -> list[str]:
    names = {path.stem for path in folder.glob("*.png") if path.name[0] != "."}
    missing = [
        f"{folder / name}.png: missing, {left / name}.png has no mask; unpack it again"
        for name in frames
        if name not in names
    ]
    return missing + [
        f"{folder / name}.png: mask without a frame; remove it or add the frame"
        for name in sorted(names.difference(frames), key=natural_key)
    ]


def _size_faults(folder: Path, frames: list[str], masks: list[Path]) -> list[str]:
    faults: list[str] = []
    first: tuple[int, int] | None = None
    for name in frames:
        for place in (folder / "left_frames", *masks):
            path = place / f"{name}.png"
            try:
                size = read_size(path)
                if first is None:
                    first = size
                    picture_box(*size)
            except FileNotFoundError:
                continue
            except DataError as error:
                faults += [
                    line if str(path) in line else f"{path}: {line}"
                    for line in error.faults
                ]
                continue
            if size != first:
                faults.append(
                    f"{path}: {size[1]}x{size[0]} (width x height), the sequence began "
                    f"with {first[1]}x{first[0]}; replace the file"
                )
    return faults
