"""Frames and their masks as files: named alike, numbered once, of one size.

What every reader of files checks before a pixel is decoded. Faults are collected, a
line each, so that a person learns of all of them at once.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_pipelines.io.images import DataError, has_orientation_tag, read_size
from data_pipelines.io.names import name_fault

MASKS = (".png", ".bmp", ".tif", ".tiff")
"""Suffixes of masks: of formats that lose nothing."""

PICTURES = (".jpg", ".jpeg", *MASKS)
"""Suffixes of frames."""


def is_skipped(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's.

    Hidden ones, and what macOS puts beside files in archives and on foreign disks:
    `__MACOSX` and, for each picture, `._PICTURE` with its suffix.
    """
    return name.startswith(".") or name == "__MACOSX"


def list_files(folder: Path, suffixes: tuple[str, ...] = PICTURES) -> list[Path]:
    """A folder's files of these suffixes in natural order, skipped ones left out.

    The one rule by which training, prediction and the live view see a folder.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes
        and not is_skipped(path.name)
        and not path.is_dir()
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that orders numbers inside names by value: frame_2 before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def files_by_stem(
    folder: Path, suffixes: tuple[str, ...], faults: list[str]
) -> dict[str, Path]:
    """A folder's files by stem, in natural order.

    A name that cannot be written elsewhere is a fault; so is a stem that is there
    twice, and a folder without any.
    """
    files = _by_stem(list_files(folder, suffixes) if folder.is_dir() else [], faults)
    if not files:
        kinds = ", ".join(suffix[1:] for suffix in suffixes)
        faults.append(f"{folder}: missing or empty; put the files ({kinds}) there")
    return files


def masks_by_frame(frames: Iterable[str], masks: Mapping[str, Path]) -> dict[str, Path]:
    """Masks by the stems of their frames, where masks add an ending to these.

    f1_mask.png is the mask of f1.png if no mask is called as a frame is.

    Args:
        frames: their stems.
        masks: by their own stems.
    """
    known = set(frames)
    ending = "" if known.intersection(masks) else _ending(masks, known)
    return {stem.removesuffix(ending): path for stem, path in masks.items()}


def frames_and_masks(
    folder: Path, faults: list[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Frames and masks that lie in one folder, by the frames' stems, in natural order.

    Either f1.jpg with f1.png (or .bmp, .tif), or f1.png with f1_mask.png, where the
    ending may be any that holds no digit.

    Returns:
        Two empty dicts if the folder's pictures are no such pairs.
    """
    files = list_files(folder)
    lossy = [path for path in files if path.suffix.lower() not in MASKS]
    lossless = [path for path in files if path.suffix.lower() in MASKS]
    if {path.stem for path in lossy} & {path.stem for path in lossless}:
        return _by_stem(lossy, faults), _by_stem(lossless, faults)
    stems = {path.stem for path in files}
    ending = _ending((path.stem for path in lossless), stems)
    if not ending:
        return {}, {}
    frames = [path for path in files if not path.stem.endswith(ending)]
    masks = [path for path in files if path.stem.endswith(ending)]
    by_stem = _by_stem(masks, faults)
    named = {stem.removesuffix(ending): path for stem, path in by_stem.items()}
    return _by_stem(frames, faults), named


def _ending(masks: Iterable[str], frames: set[str]) -> str:
    """What most masks' stems add to those of frames; it holds no digit."""
    found = Counter(
        mask[cut:]
        for mask in masks
        for cut in range(1, len(mask))
        if mask[:cut] in frames and not re.search(r"\d", mask[cut:])
    )
    return max(found, key=lambda text: (found[text], -len(text)), default="")


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
    """Files whose stems differ in leading zeros alone, hence are one frame."""
    faults: list[str] = []
    first: dict[str, Path] = {}
    for stem, path in files.items():
        number = re.sub(r"\d+", lambda digits: str(int(digits[0])), stem)
        if number in first:
            kept = first[number].name
            faults.append(f"{path}: same frame number as {kept}; keep one")
        first.setdefault(number, path)
    return faults


def pairing_faults(
    frames: Mapping[str, Path],
    masks: Mapping[str, Path],
    folder: Path,
    *,
    every: bool = True,
) -> list[str]:
    """Frames without a mask in `folder`, and masks without a frame, by stem.

    Args:
        every: whether each frame must have one.
    """
    # An empty folder is one fault already, not one for each frame.
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
    """Files whose size, by their headers, is not most files', or that have no header.

    Args:
        files: frames and masks of one video.
    """
    faults: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in files:
        try:
            sizes[path] = read_size(path)
        except DataError as error:
            faults += error.faults
        except OSError as error:  # such as a link that leads nowhere
            faults.append(str(error))
    if not sizes:
        return faults
    usual, _ = Counter(sizes.values()).most_common(1)[0]
    example = next(path for path, size in sizes.items() if size == usual)
    for path, size in sizes.items():
        if size != usual:
            tag = has_orientation_tag(path) or has_orientation_tag(example)
            faults.append(
                f"{path}: {_text(size)} but {example.name} is {_text(usual)}; a video "
                "and its masks have one size: replace the file"
                + (", or turn its pixels as the EXIF orientation tag says" * tag)
            )
    return faults


def numbered_folders(
    root: Path,
    prefix: str,
    found: Mapping[int, Path],
    wanted: Iterable[int] | None,
    faults: list[str],
) -> dict[int, Path]:
    """The wanted of the folders `PREFIX1`, `PREFIX2`, ..., in order; all if None."""
    numbers = tuple(found) if wanted is None else tuple(dict.fromkeys(wanted))
    faults += [
        f"{root}: no folder {prefix}{number}; there are {tuple(found)}"
        for number in numbers
        if number not in found
    ]
    return {number: found[number] for number in numbers if number in found}


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} (width x height)"
