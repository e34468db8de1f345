"""Finds image files and pairs frames with masks, by file name.

These checks of names, numbers and sizes are shared by all readers and run before any
pixel is decoded. Error messages are collected in lists called `faults`, one line each,
so that all of them are reported at once.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_pipelines.io.images import DataError, has_orientation_tag, read_size
from data_pipelines.io.names import name_fault

MASKS = (".png", ".bmp", ".tif", ".tiff")
"""File suffixes of masks; these formats are lossless."""

PICTURES = (".jpg", ".jpeg", *MASKS)
"""File suffixes of frames."""


def is_skipped(name: str) -> bool:
    """Returns whether a file or folder is ignored because of its name.

    Ignored are hidden files and those that macOS adds to archives and external disks:
    `__MACOSX` and, for each image, a file `._IMAGE`.
    """
    return name.startswith(".") or name == "__MACOSX"


def list_files(folder: Path, suffixes: tuple[str, ...] = PICTURES) -> list[Path]:
    """Returns the files of a folder that have one of the suffixes, in natural order.

    Training, prediction and the live view all list folders with this function.

    Raises:
        OSError: the folder cannot be listed.
    """
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes
        and not is_skipped(path.name)
        and not path.is_dir()
    ]
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Returns a sort key that compares numbers by value: frame_2 before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def files_by_stem(
    folder: Path, suffixes: tuple[str, ...], faults: list[str]
) -> dict[str, Path]:
    """Returns the files of a folder by stem, in natural order.

    Invalid names, stems that occur twice, and a missing or empty folder are added to
    `faults`.
    """
    files = _by_stem(list_files(folder, suffixes) if folder.is_dir() else [], faults)
    if not files:
        kinds = ", ".join(suffix[1:] for suffix in suffixes)
        faults.append(f"{folder}: missing or empty; put the files ({kinds}) there")
    return files


def masks_by_frame(frames: Iterable[str], masks: Mapping[str, Path]) -> dict[str, Path]:
    """Returns the masks by the stem of their frame.

    A mask has the stem of its frame. If none has, they may share an ending: then
    f1_mask.png is the mask of f1.png.

    Args:
        frames: stems of the frames.
        masks: mask files by their own stem.
    """
    stems = set(frames)
    ending = "" if stems.intersection(masks) else _mask_ending(masks, stems)
    return {stem.removesuffix(ending): path for stem, path in masks.items()}


def frames_and_masks(
    folder: Path, faults: list[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Finds the frames and masks in a folder that contains both.

    The pairs are either f1.jpg with f1.png (or .bmp, .tif), or f1.png with f1_mask.png,
    where the ending may be any text without a digit.

    Returns:
        (frames, masks), both by the frame's stem, in natural order; two empty dicts if
        the folder has no such pairs.
    """
    files = list_files(folder)
    lossy = [path for path in files if path.suffix.lower() not in MASKS]
    lossless = [path for path in files if path.suffix.lower() in MASKS]
    if {path.stem for path in lossy} & {path.stem for path in lossless}:
        return _by_stem(lossy, faults), _by_stem(lossless, faults)
    stems = {path.stem for path in files}
    ending = _mask_ending((path.stem for path in lossless), stems)
    if not ending:
        return {}, {}
    frames = [path for path in files if not path.stem.endswith(ending)]
    masks = [path for path in files if path.stem.endswith(ending)]
    by_stem = _by_stem(masks, faults)
    by_frame = {stem.removesuffix(ending): path for stem, path in by_stem.items()}
    return _by_stem(frames, faults), by_frame


def _mask_ending(masks: Iterable[str], frames: set[str]) -> str:
    """Returns the most common text, without digits, that masks append to a frame."""
    endings = Counter(
        mask[cut:]
        for mask in masks
        for cut in range(1, len(mask))
        if mask[:cut] in frames and not re.search(r"\d", mask[cut:])
    )
    return max(endings, key=lambda text: (endings[text], -len(text)), default="")


def _by_stem(paths: Iterable[Path], faults: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        if fault := name_fault(path.name):
            faults.append(f"{path}: the name {fault}; rename it")
        if path.stem in files:
            faults.append(f"{path}: same frame as {files[path.stem].name}; keep one")
        files.setdefault(path.stem, path)
    return files


def number_faults(files: Mapping[str, Path]) -> list[str]:
    """Reports files whose stems differ only in leading zeros."""
    faults: list[str] = []
    first: dict[str, Path] = {}
    for stem, path in files.items():
        key = re.sub(r"\d+", lambda digits: str(int(digits[0])), stem)
        if key in first:
            other = first[key].name
            faults.append(f"{path}: same frame number as {other}; keep one")
        first.setdefault(key, path)
    return faults


def pairing_faults(
    frames: Mapping[str, Path],
    masks: Mapping[str, Path],
    folder: Path,
    *,
    every: bool = True,
) -> list[str]:
    """Reports frames without a mask and masks without a frame.

    Args:
        frames: frame files by stem.
        masks: mask files by the stem of their frame.
        folder: the folder of the masks, for the messages.
        every: whether every frame must have a mask.
    """
    # An empty folder has been reported once; not again for each frame.
    if not frames or not masks:
        return []
    missing = [
        f"{path}: frame without a mask; add {folder / stem}.png"
        for stem, path in frames.items()
        if every and stem not in masks
    ]
    return missing + [
        f"{path}: mask without a frame; add frame {stem} or remove the mask"
        for stem, path in masks.items()
        if stem not in frames
    ]


def size_faults(files: Iterable[Path]) -> list[str]:
    """Reports files of a different size than most, and files without a valid header.

    Args:
        files: frames and masks of one video; only their headers are read.
    """
    faults: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        try:
            sizes[path] = read_size(path)
        except DataError as error:
            faults += error.faults
        except OSError as error:  # for example a broken symbolic link
            faults.append(str(error))
    if not sizes:
        return faults
    expected, _ = Counter(sizes.values()).most_common(1)[0]
    example = next(path for path, size in sizes.items() if size == expected)
    for path, size in sizes.items():
        if size != expected:
            message = (
                f"{path}: {_text(size)} but {example.name} is {_text(expected)}; all "
                "frames and masks of a video must have one size: replace the file"
            )
            if has_orientation_tag(path) or has_orientation_tag(example):
                message += ", or rotate its pixels as the EXIF orientation tag says"
            faults.append(message)
    return faults


def numbered_folders(
    root: Path,
    prefix: str,
    folders: Mapping[int, Path],
    numbers: Iterable[int] | None,
    faults: list[str],
) -> dict[int, Path]:
    """Selects folders `PREFIX1`, `PREFIX2`, ... by number, in the order of `numbers`.

    Args:
        root: the parent folder, for the messages.
        prefix: start of the folders' names, for the messages.
        folders: all folders, by number.
        numbers: the numbers to select; None selects all.
        faults: missing folders are added to it.
    """
    selected = tuple(folders) if numbers is None else tuple(dict.fromkeys(numbers))
    faults += [
        f"{root}: no folder {prefix}{number}; there are {tuple(folders)}"
        for number in selected
        if number not in folders
    ]
    return {number: folders[number] for number in selected if number in folders}


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} (width x height)"
