"""Reads the folders of the EndoVis 2018 challenge.

The files are `seq_K/left_frames/frameNNN.png` and `seq_K/labels/frameNNN.png`. Labels
are colors, RGB in some sequences and RGBA in others; the alpha channel is ignored.
Frames have no border. The archive of repairs contains corrected labels, named
`seq_K_frameNNN.png`; those in a folder whose name starts with "repairs" replace the
released ones.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import DataError, Video, read_image
from data_pipelines.io.pairs import (
    files_by_stem,
    is_skipped,
    natural_key,
    number_faults,
    numbered_folders,
    pairing_faults,
    size_faults,
)
from data_pipelines.sources.endovis18.tables import CLASSES, UNKNOWN, decode_colors

_DEPTH = 4


class EndoVis18:
    """A `RawSource` of EndoVis 2018 for one task. Made by `open_endovis18`.

    Args:
        task: "parts" or "all".
        on_unknown: see `open_endovis18`.
        videos: the videos.
        images: image files by video and frame.
        masks: label files by video and frame; repaired where possible.
    """

    def __init__(
        self,
        task: str,
        on_unknown: str,
        videos: tuple[Video, ...],
        images: tuple[tuple[Path, ...], ...],
        masks: tuple[tuple[Path, ...], ...],
    ):
        self.task = task
        self.on_unknown = on_unknown
        self.classes = CLASSES[task]
        self.videos = videos
        self.images = images
        self.masks = masks
        self._unknown: dict[tuple[int, int], dict[str, int]] = {}

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns pixel counts by color (#rrggbb) that belongs to no class."""
        colors = self._unknown.get((video, frame))
        return {self.masks[video][frame]: colors} if colors else {}

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of the image and the label, the repaired one if any."""
        return self.images[video][frame], self.masks[video][frame]

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image, uint8 `[H, W, 3]`.

        Raises:
            DataError: the file cannot be decoded.
        """
        return read_image(self.images[video][frame])

    def label(self, video: int, frame: int) -> np.ndarray:
        """Returns the classes of the task, uint8 `[H, W]`.

        Raises:
            DataError: the file cannot be decoded, or a color belongs to no class.
        """
        path = self.masks[video][frame]
        label, self._unknown[video, frame] = decode_colors(
            read_image(path), path, task=self.task, on_unknown=self.on_unknown
        )
        return label


def open_endovis18(
    root: str | Path,
    *,
    task: str = "parts",
    sequences: Sequence[int] | None = None,
    on_unknown: str = "error",
    subset: str = "train",
) -> EndoVis18:
    """Opens the data as distributed by the challenge.

    Folder names, file names and image headers of all frames and labels are checked
    here; pixels are decoded on demand. The sequences 1 to 4 of the test archive are
    different procedures than those of the training archives, so it must be opened as a
    separate root.

    Args:
        root: contains the folders `seq_K`, directly or in the folders of the archives.
        task: "parts" (4 classes) or "all" (12); see `CLASSES`.
        sequences: the numbers K to open, in this order; None: all.
        on_unknown: treatment of colors that belong to no class: "error", "ignore" or
            "nearest"; see `decode_colors`.
        subset: "train", or "test" if `root` contains the test archive.

    Returns:
        A source whose videos are named seq_K, or test_seq_K for the test archive.

    Raises:
        FileNotFoundError: `root` is not a folder.
        ValueError: `task`, `on_unknown` or `subset` is unknown.
        DataError: one line for every error found in the folders.
    """
    root = Path(root)
    if task not in CLASSES:
        raise ValueError(f"task={task!r}: must be one of {', '.join(CLASSES)}")
    if on_unknown not in UNKNOWN:
        raise ValueError(f"on_unknown={on_unknown!r}: use {', '.join(UNKNOWN)}")
    if subset not in ("train", "test"):
        raise ValueError(f"subset={subset!r}: must be train or test")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    faults: list[str] = []
    folders, repairs = _find_sequences(root, faults)
    prefix = "test_" if subset == "test" else ""
    videos, images, masks = [], [], []
    for k, folder in numbered_folders(root, "seq_", folders, sequences, faults).items():
        frames = _files(folder / "left_frames", faults)
        labels = _files(folder / "labels", faults)
        repaired = {name: path for (n, name), path in repairs.items() if n == k}
        faults += [
            f"{path}: repairs a label that {folder} lacks; remove it or add the label"
            for name, path in repaired.items()
            if name not in labels
        ]
        faults += pairing_faults(frames, labels, folder / "labels")
        labels |= repaired
        names = [name for name in frames if name in labels]
        faults += size_faults([*frames.values(), *labels.values()])
        videos.append(Video(f"{prefix}seq_{k}", tuple(names)))
        images.append(tuple(frames[name] for name in names))
        masks.append(tuple(labels[name] for name in names))
    if faults:
        raise DataError(faults)
    return EndoVis18(task, on_unknown, tuple(videos), tuple(images), tuple(masks))


def sequence_numbers(root: str | Path) -> list[int]:
    """Returns the numbers of the sequences below `root`, without opening them."""
    return list(_find_sequences(Path(root), [])[0]) if Path(root).is_dir() else []


def _find_sequences(
    root: Path, faults: list[str]
) -> tuple[dict[int, Path], dict[tuple[int, str], Path]]:
    """Returns folders by sequence number, and repairs by (number, frame name)."""
    folders: dict[int, Path] = {}
    repairs: dict[tuple[int, str], Path] = {}
    for folder in _folders(root, _DEPTH):
        match = re.fullmatch(r"seq_(\d+)", folder.name)
        if match and any(
            (folder / name).is_dir() for name in ("left_frames", "labels")
        ):
            number = int(match[1])
            if number in folders:
                faults.append(
                    f"{folder}: sequence {number} again, first {folders[number]}; keep "
                    "one, and put the test archive in a separate folder"
                )
            folders.setdefault(number, folder)
        elif folder.name.startswith("repairs"):
            for path in sorted(folder.glob("seq_*_frame*.png")):
                match = re.fullmatch(r"seq_(\d+)_(frame\d+)", path.stem)
                if match and not is_skipped(path.name):
                    repairs[int(match[1]), match[2]] = path
    if not folders:
        faults.append(f"{root}: no folders seq_1, seq_2, ... in it")
    return dict(sorted(folders.items())), repairs


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Yields `root` and the folders below it, without those to be skipped."""
    yield root
    if depth == 0:
        return
    for entry in sorted(os.scandir(root), key=lambda entry: natural_key(entry.name)):
        skipped = is_skipped(entry.name) or entry.name in (
            "left_frames",
            "right_frames",
            "labels",
        )
        if entry.is_dir() and not skipped:
            yield from _folders(Path(entry.path), depth - 1)


def _files(folder: Path, faults: list[str]) -> dict[str, Path]:
    """Returns the PNG files by stem, in the order of their frame numbers."""
    pngs = files_by_stem(folder, (".png",), faults)
    files = {stem: pngs[stem] for stem in pngs if re.fullmatch(r"frame_?\d+", stem)}
    faults += [
        f"{path}: the name must be frameNNN.png; rename or remove it"
        for stem, path in pngs.items()
        if stem not in files
    ]
    faults += number_faults(files)
    return files
