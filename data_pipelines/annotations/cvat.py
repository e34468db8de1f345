"""CVAT's "Segmentation mask 1.1", read as exported and written as CVAT imports it.

labelmap.txt                       NAME:R,G,B:PARTS:ACTIONS, a line a class
SegmentationClass/[VIDEO/]F.png    a class's color
JPEGImages/[VIDEO/]F.jpg           where the export was asked to hold the images
ImageSets/Segmentation/default.txt names without suffixes
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.annotations.pictures import (
    Annotated,
    Export,
    files_under,
    named,
    with_background,
)
from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.io.files import as_write_error, write_text
from data_pipelines.io.pairs import MASKS
from data_pipelines.sources.folder import read_mask

MASK_FOLDER = "SegmentationClass"
_IMAGES = "JPEGImages"
_LINE = "NAME:R,G,B::"


def is_export(folder: Path) -> bool:
    """Whether CVAT exported this folder."""
    return (folder / MASK_FOLDER).is_dir()


def read(folder: Path, images: Path | None = None) -> Export:
    """Reads an exported folder; masks are decoded when they are asked for.

    Args:
        folder: as exported.
        images: the pictures, if the export does not hold them; named as the masks are.

    Raises:
        DataError: a line for every fault of its tree.
    """
    faults: list[str] = []
    classes = _classes(folder / "labelmap.txt", faults)
    place = images or folder / _IMAGES
    if not place.is_dir():
        faults.append(
            f"{place}: no such folder; export with images from CVAT, or give the "
            "folder of the pictures with --images"
        )
        raise DataError(faults)
    masks = _by_name(folder / MASK_FOLDER, MASKS, faults)
    pictures = _by_name(place, None, faults)
    faults += [
        f"{path}: mask without a picture; there is no {name} in {place}"
        for name, path in masks.items()
        if name not in pictures
    ]
    if not pictures:
        faults.append(f"{place}: holds no pictures")
    if faults:
        raise DataError(faults)
    found = [
        Annotated(
            *named(name),
            picture,
            functools.partial(_label, masks[name], classes) if name in masks else None,
        )
        for name, picture in pictures.items()
    ]
    return Export(classes, tuple(found))


class Writer:
    """Writes labels as CVAT imports them.

    Args:
        folder: that exists.
        classes: background first; colors that differ.

    Raises:
        DataError: a name or color that a labelmap cannot hold.
        WriteError: also by the methods: a file cannot be written.
    """

    def __init__(self, folder: Path, classes: Sequence[ClassInfo]) -> None:
        self._folder, self._classes = folder, tuple(classes)
        self._names: list[str] = []
        wrong = [info.name for info in classes if set(info.name) & set(":\n")]
        if wrong:
            raise DataError([f"class {wrong[0]!r}: CVAT's names hold no colon"])
        if len({info.color for info in classes}) < len(classes):
            raise DataError(["classes: two have one color; CVAT tells them by it"])
        with as_write_error(folder):
            (folder / MASK_FOLDER).mkdir()
            (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
        lines = ["# label:color_rgb:parts:actions"]
        lines += [f"{info.name}:{_text(info.color)}::" for info in classes]
        write_text(folder / "labelmap.txt", "\n".join(lines) + "\n")

    def add(self, name: str, label: np.ndarray) -> None:
        """Writes the label, uint8 `[H, W]`, of the picture called `name`."""
        table = np.array([info.color for info in self._classes], np.uint8)
        path = self._folder / MASK_FOLDER / f"{name}.png"
        with as_write_error(path):
            Image.fromarray(table[label]).save(path)
        self._names.append(name)

    def close(self) -> None:
        """Writes the list of pictures."""
        path = self._folder / "ImageSets" / "Segmentation" / "default.txt"
        write_text(path, "".join(f"{name}\n" for name in self._names))


def _label(path: Path, classes: Sequence[ClassInfo]) -> np.ndarray:
    try:
        return read_mask(path, classes, "colors")
    except DataError as error:
        lines = [line.replace("classes.json", "labelmap.txt") for line in error.faults]
        raise DataError(lines) from None


def _by_name(
    folder: Path, suffixes: tuple[str, ...] | None, faults: list[str]
) -> dict[str, Path]:
    """Files below a folder by their path without suffix."""
    files: dict[str, Path] = {}
    for path in files_under(folder, *([suffixes] if suffixes else [])):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            faults.append(f"{path}: same picture as {files[name].name}; keep one")
        files.setdefault(name, path)
    return files


def _classes(file: Path, faults: list[str]) -> tuple[ClassInfo, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        faults.append(f"{file}: missing; it says which color is which class")
        return ()
    except (OSError, ValueError) as error:
        faults.append(f"{file}: cannot be read ({error})")
        return ()
    before, table = len(faults), []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        color = _color(rest.partition(":")[0])
        if not name or color is None:
            faults.append(f"{file}: line {number}: {line!r} is not {_LINE}")
        else:
            table.append(ClassInfo(name, color))
    for what in ("name", "color"):
        values = [getattr(info, what) for info in table]
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            faults.append(f"{file}: two classes of {what} {twice}; they must differ")
    if len(faults) > before:
        return ()
    classes = with_background(table)
    if [info.color for info in classes].count((0, 0, 0)) > 1:
        faults.append(f"{file}: black is the background's; no class may have it")
    return classes


def _color(text: str) -> tuple[int, int, int] | None:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        return None
    red, green, blue = map(int, parts)
    return (red, green, blue) if max(red, green, blue) <= 255 else None


def _text(color: tuple[int, int, int]) -> str:
    return ",".join(map(str, color))
