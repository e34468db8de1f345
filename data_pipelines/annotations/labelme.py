"""Labelme's files: a JSON beside each picture, with polygons and rectangles.

    {"imagePath": "f1.jpg", "imageHeight": 480, "imageWidth": 640,
     "shapes": [{"label": "grasper", "shape_type": "polygon", "points": [[x, y], ...]}]}

Where shapes overlap, the one that comes later in the file is seen.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from data_pipelines.annotations.pictures import (
    Annotated,
    Export,
    files_under,
    named,
    with_background,
)
from data_pipelines.annotations.shapes import draw, picture_size
from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.sources.folder.classes import class_color


def is_export(folder: Path) -> bool:
    """Whether the first JSON file of a folder is Labelme's."""
    files = files_under(folder, (".json",))
    try:
        return bool(files) and "shapes" in json.loads(files[0].read_bytes())
    except (OSError, ValueError, RecursionError, TypeError):
        return False


def read(folder: Path, images: Path | None = None) -> Export:
    """Reads all files of a folder and those in it; classes by their first occurrence.

    Args:
        folder: of the files.
        images: folder of the pictures, if they are not beside the files.

    Raises:
        DataError: a line for every fault, without those of shapes.
    """
    faults: list[str] = []
    order: dict[str, None] = {}
    described: dict[str, tuple[Path, tuple[int, int], list[dict[str, Any]]]] = {}
    for file in files_under(folder, (".json",)):
        try:
            name, size, shapes = _content(file)
        except ValueError as error:
            faults.append(f"{file}: {error}")
            continue
        order |= dict.fromkeys(shape["label"] for shape in shapes)
        place = file.parent.relative_to(folder) / name
        described[place.as_posix()] = file, size, shapes
    plain = [ClassInfo(label, (0, 0, 0)) for label in order]
    names = [info.name for info in with_background(plain)]
    classes = tuple(ClassInfo(label, class_color(i)) for i, label in enumerate(names))
    pictures, place = [], images or folder
    for path in files_under(place):
        name = path.relative_to(place).as_posix()
        label = None
        if name in described:
            label = functools.partial(_label, *described.pop(name), names)
        pictures.append(Annotated(*named(name), path, label))
    faults += [
        f"{file}: imagePath: no picture {name} in {place}; give the folder that holds "
        "it with --images"
        for name, (file, *_) in described.items()
    ]
    if faults:
        raise DataError(faults)
    return Export(classes, tuple(pictures))


def _content(file: Path) -> tuple[str, tuple[int, int], list[dict[str, Any]]]:
    """(name of the picture, its size, shapes); `ValueError` says what is wrong."""
    try:
        body = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from error
    body = body if isinstance(body, dict) else {}
    name, shapes = body.get("imagePath"), body.get("shapes")
    size = picture_size(body.get("imageHeight"), body.get("imageWidth"))
    if not isinstance(name, str) or not name or size is None:
        raise ValueError("imagePath, imageHeight and imageWidth must be a picture's")
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict)
        and isinstance(shape.get("label"), str)
        and shape["label"]
        for shape in shapes
    ):
        raise ValueError("shapes must be a list, and each have a label")
    return PureWindowsPath(name).name, size, shapes  # takes both kinds of slashes


def _label(
    file: Path,
    size: tuple[int, int],
    shapes: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> np.ndarray:
    label, faults = np.zeros(size, np.uint8), []
    for number, shape in enumerate(shapes):
        try:
            label[draw([_polygon(shape)], size)] = names.index(shape["label"])
        except ValueError as error:
            faults.append(f"{file}: shape {number} ({shape['label']}): {error}")
    if faults:
        raise DataError(faults)
    return label


def _polygon(shape: dict[str, Any]) -> list[Any]:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise ValueError("points must be x and y of each")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [left, top, right, top, right, bottom, left, bottom]
    if kind != "polygon":
        raise ValueError(f"is a {kind}; only polygons and rectangles have an area here")
    return [side for point in points for side in point]
