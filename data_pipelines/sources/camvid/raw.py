"""Reads CamVid: `SPLIT/frames/SEQUENCE_NUMBER.jpg`, `SPLIT/masks/SEQUENCE_NUMBER.png`.

Mask values are classes, from 0 (sky) to 10 (bicyclist), or 11 (unlabeled), as in the
11-class form of Badrinarayanan et al. (SegNet, 2017). Unlabeled pixels are neither
trained on nor scored. The frames of a split come from several drives, and parts of a
drive may be in another split. A video is therefore a run of frames of one drive without
a gap, so that a memory never contains frames of another drive or frames that are
minutes old.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    DataError,
    Video,
    read_gray,
    read_image,
)
from data_pipelines.io.images import first_pixel
from data_pipelines.io.pairs import PICTURES, files_by_stem, pairing_faults, size_faults

CLASSES = (
    # No pixel has class 0, which scores exclude; CamVid scores all 11 classes. The name
    # is part of prepared data and keeps CamVid's spelling.
    ClassInfo("unlabelled", (0, 0, 0)),
    ClassInfo("sky", (128, 128, 128)),
    ClassInfo("building", (128, 0, 0)),
    ClassInfo("pole", (192, 192, 128)),
    ClassInfo("road", (128, 64, 128)),
    ClassInfo("pavement", (60, 40, 222)),
    ClassInfo("tree", (128, 128, 0)),
    ClassInfo("sign", (192, 128, 128)),
    ClassInfo("fence", (64, 64, 128)),
    ClassInfo("car", (64, 0, 128)),
    ClassInfo("pedestrian", (64, 64, 0)),
    ClassInfo("bicyclist", (0, 128, 192)),
)
"""The 11 classes have the indices 1 to 11: the mask value plus one."""

SPLITS = ("train", "val", "test")
"""The official division: names of folders, and prefixes of the names of videos."""

_UNLABELED = 11
# Minimum length of a gap between two frames, in median steps.
_GAP = 1.5


class CamVid:
    """A `RawSource` of CamVid. Made by `open_camvid`."""

    classes = CLASSES

    def __init__(
        self,
        videos: tuple[Video, ...],
        paths: tuple[tuple[tuple[Path, Path], ...], ...],
    ):
        self.videos = videos
        self._paths = paths

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of the image and the mask."""
        return self._paths[video][frame]

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns {}: unknown values raise an error in `label`."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image, uint8 `[H, W, 3]`.

        Raises:
            DataError: the file cannot be decoded.
        """
        return read_image(self._paths[video][frame][0])

    def label(self, video: int, frame: int) -> np.ndarray:
        """Returns the classes, uint8 `[H, W]`.

        Raises:
            DataError: the file cannot be decoded, or a value belongs to no class.
        """
        return decode_mask(self._paths[video][frame][1])


def decode_mask(path: Path) -> np.ndarray:
    """Reads the classes of a mask file, uint8 `[H, W]`: 1 to 11, or `IGNORE`.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file cannot be decoded, or a value is above 11.
    """
    values = read_gray(path)
    if values.max() > _UNLABELED:
        row, column = first_pixel(values == values.max())
        raise DataError(
            [
                f"{path}: mask value {values.max()} at row {row}, column {column} is "
                "not a class (0 to 10, 11 unlabeled); replace the file"
            ]
        )
    return np.where(values == _UNLABELED, IGNORE, values + 1).astype(np.uint8)


def open_camvid(root: str | Path, *, splits: Sequence[str] = SPLITS) -> CamVid:
    """Opens CamVid.

    File names and image headers are checked here; pixels are decoded on demand.

    Args:
        root: contains the folders train, val or test, each with `frames` and `masks`.
        splits: the splits to open; missing ones are left out.

    Returns:
        A source whose videos are named SPLIT_SEQUENCE_NUMBER, with the number of the
        first frame as in its file name.

    Raises:
        FileNotFoundError: `root` is not a folder.
        DataError: one line for every error found in the folders.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    faults: list[str] = []
    videos: list[Video] = []
    paths: list[tuple[tuple[Path, Path], ...]] = []
    existing = [name for name in splits if (root / name / "frames").is_dir()]
    if not existing:
        expected = ", ".join(f"{name}/frames" for name in splits)
        faults.append(f"{root}: no folders {expected}")
    for split in existing:
        frames = files_by_stem(root / split / "frames", PICTURES, faults)
        masks = files_by_stem(root / split / "masks", (".png",), faults)
        faults += pairing_faults(frames, masks, root / split / "masks")
        for sequence, run in _runs(frames, faults):
            pairs = tuple((frames[stem], masks[stem]) for stem in run if stem in masks)
            faults += size_faults(path for pair in pairs for path in pair)
            videos.append(Video(_name(split, sequence, run), tuple(run)))
            paths.append(pairs)
    if faults:
        raise DataError(faults)
    return CamVid(tuple(videos), tuple(paths))


def video_names(root: str | Path) -> list[str]:
    """Returns the names of the videos below `root`, without opening them."""
    return [
        _name(split, sequence, run)
        for split in SPLITS
        if (Path(root) / split / "frames").is_dir()
        for sequence, run in _runs(
            files_by_stem(Path(root) / split / "frames", PICTURES, []), []
        )
    ]


def _name(split: str, sequence: str, run: list[str]) -> str:
    first = run[0].rpartition("_")[2]
    return f"{split}_{sequence}_{first}"


def _runs(frames: dict[str, Path], faults: list[str]) -> list[tuple[str, list[str]]]:
    """Returns (sequence, frame names in time order) for each run without a gap."""
    sequences: dict[str, dict[int, str]] = {}
    for stem, path in frames.items():
        match = re.fullmatch(r"(.+)_[a-z]?(\d+)", stem)
        if match is None:
            faults.append(f"{path}: the name must be SEQUENCE_NUMBER; rename it")
            continue
        stems, number = sequences.setdefault(match[1], {}), int(match[2])
        if number in stems:
            first = frames[stems[number]].name
            faults.append(f"{path}: same frame number as {first}; keep one")
        stems.setdefault(number, stem)
    runs: list[tuple[str, list[str]]] = []
    for sequence, stems in sequences.items():
        numbers = sorted(stems)
        steps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
        median_step = median(steps) if steps else 0
        for number, step in zip(numbers, [None, *steps], strict=True):
            if step is None or step > _GAP * median_step:
                runs.append((sequence, []))
            runs[-1][1].append(stems[number])
    return runs
