"""Reads the challenge's folders: `seq_K/left_frames/frameNNN.png` with
`seq_K/labels/frameNNN.png`.

Labels are colours, as RGB in some sequences and RGBA in others; the alpha channel
means nothing. Frames have no border. The archive of repairs holds corrected labels
called `seq_K_frameNNN.png`; where a folder whose name begins with "repairs" is found,
they take the place of the released ones.
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
    """The raw data for one task; a `RawSource`. Made by `open_endovis18`.

    `images` and `masks` hold the files of each video's frames, repairs included.
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

    @property
    def unknown(self) -> int:
        """Pixels whose colour was no class's, over the labels read so far."""
        return sum(sum(colors.values()) for colors in list(self._unknown.values()))

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Of a label file, once read: pixels by colour of no class, #rrggbb."""
        colors = self._unknown.get((video, frame))
        return {self.masks[video][frame]: colors} if colors else {}

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """The picture and its label, repaired if it is."""
        return self.images[video][frame], self.masks[video][frame]

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]`; `DataError` if it cannot be decoded."""
        return read_image(self.images[video][frame])

    def label(self, video: int, frame: int) -> np.ndarray:
        """The task's classes, uint8 `[H, W]`.

        Raises:
            DataError: the label cannot be read or holds a colour that is no class's.
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
    """Opens the data of the challenge as it is distributed.

    Folder names, file names and image headers of every frame and label are checked
    here; pixels are decoded when asked for. The test archive's seq_1 to seq_4 are
    other procedures than the training archives': open it as a root of its own.

    Args:
        root: holds the folders `seq_K`, or the archives' folders with these in them.
        task: "parts" (4 classes) or "all" (12), see `CLASSES`.
        sequences: the K wanted, in this order; all that are there if not given.
        on_unknown: what becomes of a pixel whose colour is no class's: "error",
            "ignore" or "nearest", see `decode_colors`.
        subset: "train", or "test" if `root` holds the test archive.

    Returns:
        The source; its videos are called seq_K, those of the test archive test_seq_K.

    Raises:
        FileNotFoundError: `root` is no folder.
        ValueError: there is no such task, `on_unknown` or `subset`.
        DataError: one line for every fault found in the folders.
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
    found, repairs = _survey(root, faults)
    prefix = "test_" if subset == "test" else ""
    videos, images, masks = [], [], []
    for k, folder in numbered_folders(root, "seq_", found, sequences, faults).items():
        frames = _files(folder / "left_frames", faults)
        labels = _files(folder / "labels", faults)
        mended = {name: path for (n, name), path in repairs.items() if n == k}
        faults += [
            f"{path}: repairs a label that {folder} lacks; remove it or add the label"
            for name, path in mended.items()
            if name not in labels
        ]
        faults += pairing_faults(frames, labels, folder / "labels")
        labels |= mended
        names = [name for name in frames if name in labels]
        faults += size_faults([*frames.values(), *labels.values()])
        videos.append(Video(f"{prefix}seq_{k}", tuple(names)))
        images.append(tuple(frames[name] for name in names))
        masks.append(tuple(labels[name] for name in names))
    if faults:
        raise DataError(faults)
    return EndoVis18(task, on_unknown, tuple(videos), tuple(images), tuple(masks))


def sequence_numbers(root: str | Path) -> list[int]:
    """The sequences there are below `root`; nothing is opened."""
    return list(_survey(Path(root), [])[0]) if Path(root).is_dir() else []


def _survey(
    root: Path, faults: list[str]
) -> tuple[dict[int, Path], dict[tuple[int, str], Path]]:
    """Folders by sequence number, and corrected labels by (number, frame name)."""
    found: dict[int, Path] = {}
    repairs: dict[tuple[int, str], Path] = {}
    for folder in _folders(root, _DEPTH):
        match = re.fullmatch(r"seq_(\d+)", folder.name)
        if match and any(
            (folder / name).is_dir() for name in ("left_frames", "labels")
        ):
            number = int(match[1])
            if number in found:
                faults.append(
                    f"{folder}: sequence {number} again, first {found[number]}; keep "
                    "one, and the test archive in a root of its own"
                )
            found.setdefault(number, folder)
        elif folder.name.startswith("repairs"):
            for path in sorted(folder.glob("seq_*_frame*.png")):
                named = re.fullmatch(r"seq_(\d+)_(frame\d+)", path.stem)
                if named and not is_skipped(path.name):
                    repairs[int(named[1]), named[2]] = path
    if not found:
        faults.append(f"{root}: no folders seq_1, seq_2, ... in it")
    return dict(sorted(found.items())), repairs


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders below it, without those that archivers leave."""
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
    """PNG files by stem, in the order of their frame numbers."""
    found = files_by_stem(folder, (".png",), faults)
    files = {stem: found[stem] for stem in found if re.fullmatch(r"frame_?\d+", stem)}
    faults += [
        f"{path}: must be called frameNNN.png; rename or remove it"
        for stem, path in found.items()
        if stem not in files
    ]
    faults += number_faults(files)
    return files
