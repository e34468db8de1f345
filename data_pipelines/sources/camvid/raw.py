"""Reads `SPLIT/frames/SEQUENCE_NUMBER.jpg` with `SPLIT/masks/SEQUENCE_NUMBER.png`.

A mask's value is a class, 0 sky to 10 bicyclist, or 11 for unlabelled, as in the
11-class form of Badrinarayanan et al. (SegNet, 2017); an unlabeled pixel is neither
trained on nor scored. A split's frames come from several drives, with parts of a drive
in another split, so a video is a run of frames of one drive without a gap: a memory
never holds another drive's frames, nor minutes-old ones as if they were the last.
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
from data_pipelines.io.pairs import PICTURES, files_by_stem, pairing_faults, size_faults

CLASSES = (
    # Of no pixel: class 0 is what scores leave out, and CamVid scores all 11.
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
"""The 11 classes are 1 to 11, a mask's value plus one."""

SPLITS = ("train", "val", "test")
"""The official division: folders, and what the names of videos begin with."""

_UNLABELLED = 11
# A step between neighbours that is longer than so many usual ones is a gap.
_GAP = 1.5


class CamVid:
    """CamVid's videos; a `RawSource`. Made by `open_camvid`."""

    classes = CLASSES

    def __init__(
        self,
        videos: tuple[Video, ...],
        paths: tuple[tuple[tuple[Path, Path], ...], ...],
    ):
        self.videos = videos
        self._paths = paths

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """The picture and its mask."""
        return self._paths[video][frame]

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Nothing: a value that is no class's is an error here."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]`; `DataError` if it cannot be decoded."""
        return read_image(self._paths[video][frame][0])

    def label(self, video: int, frame: int) -> np.ndarray:
        """The classes, uint8 `[H, W]`; `DataError` for a value that is no class."""
        return decode_mask(self._paths[video][frame][1])


def decode_mask(path: Path) -> np.ndarray:
    """A mask file's classes, uint8 `[H, W]`: 1 to 11, or `IGNORE`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be decoded or holds a value above 11.
    """
    values = read_gray(path)
    if values.max() > _UNLABELLED:
        row, column = np.unravel_index(values.argmax(), values.shape)
        raise DataError(
            [
                f"{path}: mask value {values.max()} at row {row}, column {column} is "
                "no class (0 to 10, 11 unlabelled); replace the file"
            ]
        )
    return np.where(values == _UNLABELLED, IGNORE, values + 1).astype(np.uint8)


def open_camvid(root: str | Path, *, splits: Sequence[str] = SPLITS) -> CamVid:
    """Opens CamVid, those of the splits that are there.

    File names and image headers are checked here; pixels are decoded when asked for.

    Args:
        root: holds the folders train, val or test, each with `frames` and `masks`.
        splits: the folders that are looked at.

    Returns:
        The source; its videos are called SPLIT_SEQUENCE_FIRST, with the number of the
        first frame as in its file's name.

    Raises:
        FileNotFoundError: `root` is no folder.
        DataError: one line for every fault found in the folders.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    faults: list[str] = []
    videos: list[Video] = []
    paths: list[tuple[tuple[Path, Path], ...]] = []
    found = [name for name in splits if (root / name / "frames").is_dir()]
    if not found:
        wanted = ", ".join(f"{name}/frames" for name in splits)
        faults.append(f"{root}: no folders {wanted}")
    for split in found:
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
    """The videos there are below `root`, by name; nothing is opened."""
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
    """(sequence, names of its frames in time order) for each run without a gap."""
    numbers: dict[str, dict[int, str]] = {}
    for stem, path in frames.items():
        match = re.fullmatch(r"(.+)_[a-z]?(\d+)", stem)
        if match is None:
            faults.append(f"{path}: must be called SEQUENCE_NUMBER; rename it")
            continue
        known = numbers.setdefault(match[1], {})
        if int(match[2]) in known:
            first = frames[known[int(match[2])]].name
            faults.append(f"{path}: same frame number as {first}; keep one")
        known.setdefault(int(match[2]), stem)
    runs: list[tuple[str, list[str]]] = []
    for sequence, known in numbers.items():
        order = sorted(known)
        steps = [b - a for a, b in zip(order, order[1:], strict=False)]
        usual = median(steps) if steps else 0
        for number, step in zip(order, [None, *steps], strict=True):
            if step is None or step > _GAP * usual:
                runs.append((sequence, []))
            runs[-1][1].append(known[number])
    return runs
