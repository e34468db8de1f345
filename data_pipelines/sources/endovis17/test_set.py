"""Reads the challenge's test archives and the ground truth published for them.

Frames lie in `instrument_dataset_K/left_frames/frameNNN.png`, labels of all instruments
together in `instrument_dataset_K/[gt/]<kind>/frameNNN.png`, where the kind is
BinarySegmentation, PartsSegmentation or TypeSegmentation and the folder may be another
archive's. The values of parts are not those of the training data.

Test sequences 1 to 8 are the ends of the training videos of the same name, which
`train_for_test` rules out. So they keep the name: whatever refuses to evaluate a
network on a video that it was trained on holds the challenge's rule too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import DataError, Video, read_gray, read_image
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

# Class by mask value; the probe is no part of the task, as in the training data.
_VALUES: dict[str, dict[int, int]] = {
    "binary": {value: min(value, 1) for value in range(256)},
    "parts": {0: 0, 30: 1, 100: 2, 255: 3, 200: 0},
    "types": {value: value for value in range(8)},
}


class EndoVis17Test:
    """The test data for one task; a `RawSource`. Made by `open_endovis17_test`."""

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
        """The picture and its label."""
        name = f"{self.videos[video].frames[frame]}.png"
        return tuple(folder / name for folder in self._folders[video])

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Nothing: a value that is no class's is an error here."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture without its border, uint8 `[H, W, 3]`."""
        return crop_border(read_image(self.files(video, frame)[0]))

    def label(self, video: int, frame: int) -> np.ndarray:
        """The task's classes, uint8 `[H, W]`; `DataError` for a value of no class."""
        path = self.files(video, frame)[1]
        return crop_border(decode_test_mask(read_gray(path), path, self.task))


def decode_test_mask(values: np.ndarray, path: Path, task: str) -> np.ndarray:
    """Classes of a test mask's values, uint8 `[H, W]`.

    Raises:
        DataError: a value is no class's; names it, the file and the pixel.
    """
    table = np.full(256, 255, np.uint8)
    for value, index in _VALUES[task].items():
        table[value] = index
    label = table[values]
    wrong = label == 255
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        raise DataError(
            [
                f"{path}: mask value {values[row, column]} at row {row}, column "
                f"{column} is none of {KINDS[task]}'s "
                f"{tuple(sorted(_VALUES[task]))}; replace the file by the challenge's"
            ]
        )
    return label


def open_endovis17_test(
    root: str | Path,
    *,
    task: str = "types",
    sequences: Sequence[int] | None = None,
) -> EndoVis17Test:
    """Opens the test data of the challenge as they are distributed.

    Args:
        root: holds the test archives' folders and those of their ground truth.
        task: as in `open_endovis17`.
        sequences: the K wanted, in this order; all that are there if not given.

    Returns:
        The source; its videos are called instrument_dataset_K, as in training.

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
    folders = sequence_folders(root)
    pictures = [(k, path) for k, path in folders if (path / "left_frames").is_dir()]
    labels = [
        (k, inner)
        for k, path in folders
        for inner in (path / KINDS[task], *path.glob(f"*/{KINDS[task]}"))
        if inner.is_dir() and not is_skipped(inner.parent.name)
    ]
    found, truth = unique_folders(pictures, faults), unique_folders(labels, faults)
    if not found:
        faults.append(f"{root}: no folders instrument_dataset_K/left_frames in it")
    wanted = numbered_folders(root, PREFIX, found, sequences, faults)
    videos, places = [], []
    for k, folder in wanted.items():
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
        places.append((left, truth[k]))
    if faults:
        raise DataError(faults)
    return EndoVis17Test(task, tuple(videos), tuple(places))
