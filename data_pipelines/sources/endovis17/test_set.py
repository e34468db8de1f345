"""Reads the test archives of the challenge and their published ground truth.

Frames are in `instrument_dataset_K/left_frames/frameNNN.png`. Labels of all instruments
are in `instrument_dataset_K/[gt/]KIND/frameNNN.png`, where KIND is BinarySegmentation,
PartsSegmentation or TypeSegmentation, and the folder may be that of another archive.
The values of parts differ from those of the training data.

Test sequences 1 to 8 are the ends of the training videos of the same name, which the
challenge excludes from training (see `train_for_test`). They keep the name: the check
that refuses to evaluate a network on its training videos then enforces this rule.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import DataError, Video, read_gray, read_image
from data_pipelines.io.images import first_pixel
from data_pipelines.io.pairs import is_skipped, numbered_folders, pairing_faults
from data_pipelines.sources.endovis17.tables import CLASSES
from data_pipelines.sources.endovis17.tree import (
    PREFIX,
    crop_border,
    frame_files,
    sequence_faults,
    sequence_folders,
    unique_folders,
)

KINDS = {
    "binary": "BinarySegmentation",
    "parts": "PartsSegmentation",
    "types": "TypeSegmentation",
}
"""Label folders by task."""

# Classes by mask value; the probe is background, as in the training data.
_VALUES: dict[str, dict[int, int]] = {
    "binary": {value: min(value, 1) for value in range(256)},
    "parts": {0: 0, 30: 1, 100: 2, 255: 3, 200: 0},
    "types": {value: value for value in range(8)},
}


class EndoVis17Test:
    """A `RawSource` of the test data for one task. Made by `open_endovis17_test`."""

    def __init__(
        self,
        task: str,
        videos: tuple[Video, ...],
        folders: tuple[tuple[Path, Path], ...],
    ):
        self.task = task
        self.classes = CLASSES[task]
        self.videos = videos
        self._folders = folders

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of the image and the label."""
        name = f"{self.videos[video].frames[frame]}.png"
        return tuple(folder / name for folder in self._folders[video])

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns {}: unknown values raise an error in `label`."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image without its border, uint8 `[H, W, 3]`."""
        return crop_border(read_image(self.files(video, frame)[0]))

    def label(self, video: int, frame: int) -> np.ndarray:
        """Returns the classes of the task, uint8 `[H, W]`.

        Raises:
            DataError: the file cannot be decoded, or a value belongs to no class.
        """
        path = self.files(video, frame)[1]
        return crop_border(decode_test_mask(read_gray(path), path, self.task))


def decode_test_mask(values: np.ndarray, path: Path, task: str) -> np.ndarray:
    """Converts the values of a test mask to classes, uint8 `[H, W]`.

    Args:
        values: uint8 `[H, W]`.
        path: the file, for error messages.
        task: "types", "parts" or "binary".

    Raises:
        DataError: a value belongs to no class.
    """
    table = np.full(256, 255, np.uint8)
    for value, index in _VALUES[task].items():
        table[value] = index
    label = table[values]
    invalid = label == 255
    if invalid.any():
        row, column = first_pixel(invalid)
        raise DataError(
            [
                f"{path}: mask value {values[row, column]} at row {row}, column "
                f"{column} is not one of {KINDS[task]}'s "
                f"{tuple(sorted(_VALUES[task]))}; replace the file with the original"
            ]
        )
    return label


def open_endovis17_test(
    root: str | Path,
    *,
    task: str = "types",
    sequences: Sequence[int] | None = None,
) -> EndoVis17Test:
    """Opens the test data as distributed by the challenge.

    Args:
        root: contains the folders of the test archives and of their ground truth.
        task: "types" (8 classes), "parts" (4) or "binary" (2); see `CLASSES`.
        sequences: the numbers K to open, in this order; None: all.

    Returns:
        A source whose videos are named instrument_dataset_K, as in training.

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
    folders = sequence_folders(root)
    images = [(k, path) for k, path in folders if (path / "left_frames").is_dir()]
    labels = [
        (k, inner)
        for k, path in folders
        for inner in (path / KINDS[task], *path.glob(f"*/{KINDS[task]}"))
        if inner.is_dir() and not is_skipped(inner.parent.name)
    ]
    existing, truth = unique_folders(images, faults), unique_folders(labels, faults)
    if not existing:
        faults.append(f"{root}: no folders instrument_dataset_K/left_frames in it")
    selected = numbered_folders(root, PREFIX, existing, sequences, faults)
    videos, pairs = [], []
    for k, folder in selected.items():
        left = folder / "left_frames"
        frames = frame_files(left, faults)
        if k not in truth:
            faults.append(
                f"{folder}: no labels; unpack the test ground truth below {root}, "
                f"with instrument_dataset_{k}/[gt/]{KINDS[task]}"
            )
            continue
        labels = frame_files(truth[k], faults)
        faults += pairing_faults(frames, labels, truth[k])
        faults += sequence_faults(frames, [labels])
        videos.append(Video(f"{PREFIX}{k}", tuple(frames)))
        pairs.append((left, truth[k]))
    if faults:
        raise DataError(faults)
    return EndoVis17Test(task, tuple(videos), tuple(pairs))
