"""Reads and writes CVAT's format "Segmentation mask 1.1".

labelmap.txt                       NAME:R,G,B:PARTS:ACTIONS, one line per class
SegmentationClass/[VIDEO/]F.png    the colors of classes
JPEGImages/[VIDEO/]F.jpg           if the export contains images
ImageSets/Segmentation/default.txt names without suffixes
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.annotations.images import (
    AnnotatedImage,
    Export,
    background_first,
    find_files,
    video_and_frame,
)
from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.io.files import as_write_error, write_text
from data_pipelines.io.pairs import MASKS
from data_pipelines.sources.folder import read_mask

MASK_FOLDER = "SegmentationClass"
_IMAGES = "JPEGImages"
_LINE = "NAME:R,G,B::"


def is_export(folder: Path) -> bool:
    """Returns whether the folder is a CVAT export."""
    return (folder / MASK_FOLDER).is_dir()


def read(folder: Path, images: Path | None = None) -> Export:
    """Reads an exported folder; masks are decoded on demand.

    Args:
        folder: the exported folder.
        images: folder of the images, if the export does not contain them; their names
            must be those of the masks.

    Raises:
        DataError: has a line for every error in the folder tree.
    """
    faults: list[str] = []
    classes = _classes(folder / "labelmap.txt", faults)
    image_folder = images or folder / _IMAGES
    if not image_folder.is_dir():
        faults.append(
            f"{image_folder}: no such folder; export from CVAT with images, or name "
            "the folder of the images with --images"
        )
        raise DataError(faults)
    masks = _by_name(folder / MASK_FOLDER, MASKS, faults)
    files = _by_name(image_folder, None, faults)
    faults += [
        f"{path}: mask without an image; there is no {name} in {image_folder}"
        for name, path in masks.items()
        if name not in files
    ]
    if not files:
        faults.append(f"{image_folder}: contains no images")
    if faults:
        raise DataError(faults)
    annotated = [
        AnnotatedImage(
            *video_and_frame(name),
            file,
            functools.partial(_label, masks[name], classes) if name in masks else None,
        )
        for name, file in files.items()
    ]
    return Export(classes, tuple(annotated))


class Writer:
    """Writes labels in the format that CVAT imports.

    Args:
        folder: an existing folder.
        classes: background first; names and colors must be unique.

    Raises:
        DataError: a name or color is not valid in a labelmap.
        WriteError: a file cannot be written; also raised by the methods.
    """

    def __init__(self, folder: Path, classes: Sequence[ClassInfo]) -> None:
        self._folder, self._classes = folder, tuple(classes)
        self._names: list[str] = []
        invalid = [info.name for info in classes if set(info.name) & set(":\n")]
        if invalid:
            raise DataError(
                [f"class {invalid[0]!r}: names in CVAT must not contain a colon"]
            )
        if len({info.color for info in classes}) < len(classes):
            raise DataError(
                ["classes: two have the same color; CVAT needs unique ones"]
            )
        with as_write_error(folder):
            (folder / MASK_FOLDER).mkdir()
            (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
        lines = ["# label:color_rgb:parts:actions"]
        lines += [f"{info.name}:{_text(info.color)}::" for info in classes]
        write_text(folder / "labelmap.txt", "\n".join(lines) + "\n")

    def add(self, name: str, label: np.ndarray) -> None:
        """Writes the label, uint8 `[H, W]`, of the image with this name."""
        table = np.array([info.color for info in self._classes], np.uint8)
        path = self._folder / MASK_FOLDER / f"{name}.png"
        with as_write_error(path):
            Image.fromarray(table[label]).save(path)
        self._names.append(name)

    def close(self) -> None:
        """Writes the list of images."""
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
    """Returns the files in a folder and its subfolders by path without suffix."""
    files: dict[str, Path] = {}
    for path in find_files(folder, *([suffixes] if suffixes else [])):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            faults.append(f"{path}: same image as {files[name].name}; keep one")
        files.setdefault(name, path)
    return files


def _classes(file: Path, faults: list[str]) -> tuple[ClassInfo, ...]:
    """Reads a labelmap; if it is invalid, returns () and adds to `faults`."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        faults.append(f"{file}: missing; it defines the color of each class")
        return ()
    except (OSError, ValueError) as error:
        faults.append(f"{file}: cannot be read ({error})")
        return ()
    num_faults, table = len(faults), []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        color = _color(rest.partition(":")[0])
        if not name or color is None:
            faults.append(f"{file}: line {number}: {line!r} is not {_LINE}")
        else:
            table.append(ClassInfo(name, color))
    for field in ("name", "color"):
        values = [getattr(info, field) for info in table]
        duplicate = next((value for value in values if values.count(value) > 1), None)
        if duplicate is not None:
            faults.append(
                f"{file}: two classes have the {field} {duplicate}; they must differ"
            )
    if len(faults) > num_faults:
        return ()
    classes = background_first(table)
    if [info.color for info in classes].count((0, 0, 0)) > 1:
        faults.append(f"{file}: black is reserved for the background; change the color")
    return classes


def _color(text: str) -> tuple[int, int, int] | None:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        return None
    red, green, blue = map(int, parts)
    return (red, green, blue) if max(red, green, blue) <= 255 else None


def _text(color: tuple[int, int, int]) -> str:
    return ",".join(map(str, color))
