"""The folders and frames that the training and the test archives have in common."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.folder import natural_key
from data_pipelines.frames import DataError, read_size

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


def cropped(array: np.ndarray) -> np.ndarray:
    """A frame or mask `[H, W, ...]` without its border."""
    top, left, height, width = picture_box(*array.shape[:2])
    return np.ascontiguousarray(array[top : top + height, left : left + width])


def sequence_folders(root: Path) -> list[tuple[int, Path]]:
    """All folders instrument_dataset_K below `root`, with K, in order of K and path."""
    found = []
    for depth in range(1, _DEPTH + 1):
        for path in root.glob("/".join(["*"] * depth)):
            match = re.fullmatch(r"instrument_dataset_(\d+)", path.name)
            hidden = {part for part in path.parts if part == "__MACOSX"}
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


def frame_names(folder: Path, faults: list[str]) -> list[str]:
    """Stems of the PNG files in `folder`, in the order of their numbers."""
    names = sorted(
        (path.stem for path in folder.glob("*.png") if path.name[0] != "."),
        key=natural_key,
    )
    if not names:
        faults.append(f"{folder}: no frames; it must hold frame000.png, ...")
    first: dict[str, str] = {}
    for name in names:
        number = re.sub(r"\d+", lambda digits: str(int(digits[0])), name)
        kept = first.setdefault(number, name)
        if kept != name:
            faults.append(
                f"{folder / name}.png: same frame number as {kept}.png; keep one"
            )
    return names


def pairing_faults(left: Path, frames: list[str], folder: Path) -> list[str]:
    """Frames of `left` without a mask in `folder`, and masks without a frame."""
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


def size_faults(folder: Path, frames: list[str], masks: list[Path]) -> list[str]:
    """Files whose size, by their headers, is not that of the sequence's first frame."""
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
