"""Folders and frames, shared by the readers of the training and the test archives."""

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
"""Start of the name of a sequence's folder; its number follows."""

# The archives unpack to RAW/ARCHIVE/ARCHIVE/instrument_dataset_K.
_DEPTH = 3


def picture_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Locates the picture inside the dark border of a frame.

    The frames of the challenge are 1080 x 1920 (height x width), with a picture of
    1024 x 1280 at row 28, column 320. Frames of the same aspect ratio are assumed to be
    resized, and frames with the aspect ratio of the picture, 4:5, to be cropped.

    Args:
        height: height of the frame in pixels.
        width: width of the frame in pixels.

    Returns:
        (top, left, height, width) of the picture in pixels.

    Raises:
        DataError: the frame has another aspect ratio.
    """
    if abs(5 * height - 4 * width) <= 4:
        return 0, 0, height, width
    # The tolerance allows for rounding of both sides to whole pixels.
    if abs(16 * height - 9 * width) > 12.5:
        raise DataError(
            [
                f"frame of {width}x{height} (width x height) is neither a 1920x1080 "
                "frame nor a cropped 1280x1024 picture, nor one of these resized"
            ]
        )
    rows, columns = round(1024 * height / 1080), round(1280 * width / 1920)
    return round(28 / 1024 * rows), round(320 / 1280 * columns), rows, columns


def crop_border(array: np.ndarray) -> np.ndarray:
    """Crops the border of a frame or mask `[H, W, ...]`."""
    top, left, height, width = picture_box(*array.shape[:2])
    return np.ascontiguousarray(array[top : top + height, left : left + width])


def sequence_folders(root: Path) -> list[tuple[int, Path]]:
    """Returns (K, path) of all folders instrument_dataset_K below `root`, sorted."""
    folders = []
    for depth in range(1, _DEPTH + 1):
        for path in root.glob("/".join(["*"] * depth)):
            match = re.fullmatch(r"instrument_dataset_(\d+)", path.name)
            hidden = any(map(is_skipped, path.relative_to(root).parts))
            if match and path.is_dir() and not hidden:
                folders.append((int(match[1]), path))
    return sorted(folders, key=lambda item: (item[0], str(item[1])))


def unique_folders(
    folders: Sequence[tuple[int, Path]], faults: list[str]
) -> dict[int, Path]:
    """Returns the folders by sequence number; duplicates are added to `faults`."""
    unique: dict[int, Path] = {}
    for number, path in folders:
        if number in unique:
            faults.append(
                f"{path}: sequence {number} again, first {unique[number]}; keep one, "
                "and put the test archives in a separate folder"
            )
        unique.setdefault(number, path)
    return unique


def frame_files(folder: Path, faults: list[str]) -> dict[str, Path]:
    """Returns the PNG files of a folder by stem, in the order of their numbers."""
    files = files_by_stem(folder, (".png",), faults)
    faults += number_faults(files)
    return files


def sequence_faults(
    frames: dict[str, Path], masks: Sequence[dict[str, Path]]
) -> list[str]:
    """Reports files whose size differs within a sequence or has no known border."""
    files = [*frames.values(), *(path for folder in masks for path in folder.values())]
    faults = size_faults(files)
    for first in files[:1]:
        try:
            size = read_size(first)
        except DataError:  # already reported by size_faults
            continue
        try:
            picture_box(*size)
        except DataError as error:
            faults += [f"{first}: {line}" for line in error.faults]
    return faults
