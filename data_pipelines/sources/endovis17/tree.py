"""The folders and frames that the training and the test archives have in common."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.frames import DataError, read_size
from data_pipelines.io.pairs import (
    files_by_stem,
    is_skipped,
    number_faults,
    size_faults,
)

PREFIX = "instrument_dataset_"
"""Of a sequence's folder, before its number."""

# RAW/ARCHIVE/ARCHIVE/instrument_dataset_K is how the archives unpack.
_DEPTH = 3


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


def crop_border(array: np.ndarray) -> np.ndarray:
    """A frame or mask `[H, W, ...]` without its border."""
    top, left, height, width = picture_box(*array.shape[:2])
    return np.ascontiguousarray(array[top : top + height, left : left + width])


def sequence_folders(root: Path) -> list[tuple[int, Path]]:
    """All folders instrument_dataset_K below `root`, with K, in order of K and path."""
    found = []
    for depth in range(1, _DEPTH + 1):
        for path in root.glob("/".join(["*"] * depth)):
            match = re.fullmatch(r"instrument_dataset_(\d+)", path.name)
            hidden = any(map(is_skipped, path.relative_to(root).parts))
            if match and path.is_dir() and not hidden:
                found.append((int(match[1]), path))
    return sorted(found, key=lambda item: (item[0], str(item[1])))


def unique_folders(
    folders: Sequence[tuple[int, Path]], faults: list[str]
) -> dict[int, Path]:
    """Folders by sequence number; a second one of a sequence is a fault."""
    unique: dict[int, Path] = {}
    for number, path in folders:
        if number in unique:
            faults.append(
                f"{path}: sequence {number} again, first {unique[number]}; keep one, "
                "and the test archives in a root of their own"
            )
        unique.setdefault(number, path)
    return unique


def frame_files(folder: Path, faults: list[str]) -> dict[str, Path]:
    """PNG files of `folder` by stem, in the order of their numbers."""
    files = files_by_stem(folder, (".png",), faults)
    faults += number_faults(files)
    return files


def sequence_faults(
    frames: dict[str, Path], masks: Sequence[dict[str, Path]]
) -> list[str]:
    """Files of another size than the sequence's first frame, or that has no picture."""
    files = [*frames.values(), *(path for folder in masks for path in folder.values())]
    faults = size_faults(files)
    for first in files[:1]:
        try:
            size = read_size(first)
        except DataError:  # is a fault already
            continue
        try:
            picture_box(*size)
        except DataError as error:
            faults += [f"{first}: {line}" for line in error.faults]
    return faults
