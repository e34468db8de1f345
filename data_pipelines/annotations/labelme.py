"""Reads Labelme files: a JSON file per image, with polygons and rectangles.

    {"imagePath": "f1.jpg", "imageHeight": 480, "imageWidth": 640,
     "shapes": [{"label": "grasper", "shape_type": "polygon", "points": [[x, y], ...]}]}

Where shapes overlap, the later one in the file wins.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from data_pipelines.annotations.images import (
    AnnotatedImage,
    Export,
    background_first,
    find_files,
    video_and_frame,
)
from data_pipelines.annotations.shapes import draw, image_size
from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.sources.folder.classes import class_color


def is_export(folder: Path) -> bool:
    """Returns whether the first JSON file of a folder is a Labelme file."""
    files = find_files(folder, (".json",))
    try:
        return bool(files) and "shapes" in json.loads(files[0].read_bytes())
    except (OSError, ValueError, RecursionError, TypeError):
        return False


def read(folder: Path, images: Path | None = None) -> Export:
    """Reads all files of a folder and its subfolders.

    Classes are in the order of their first occurrence, after the background.

    Args:
        folder: the folder of the JSON files.
        images: folder of the images, if they are not with the JSON files.

    Raises:
        DataError: has a line for every error, except errors in shapes.
    """
    faults: list[str] = []
    labels: dict[str, None] = {}
    contents: dict[str, tuple[Path, tuple[int, int], list[dict[str, Any]]]] = {}
    for file in find_files(folder, (".json",)):
        try:
            name, size, shapes = _content(file)
        except ValueError as error:
            faults.append(f"{file}: {error}")
            continue
        labels |= dict.fromkeys(shape["label"] for shape in shapes)
        path = file.parent.relative_to(folder) / name
        contents[path.as_posix()] = file, size, shapes
    colorless = [ClassInfo(label, (0, 0, 0)) for label in labels]
    names = [info.name for info in background_first(colorless)]
    classes = tuple(ClassInfo(name, class_color(i)) for i, name in enumerate(names))
    annotated, image_folder = [], images or folder
    for path in find_files(image_folder):
        name = path.relative_to(image_folder).as_posix()
        label = None
        if name in contents:
            label = functools.partial(_label, *contents.pop(name), names)
        annotated.append(AnnotatedImage(*video_and_frame(name), path, label))
    faults += [
        f"{file}: imagePath: no image {name} in {image_folder}; name the folder that "
        "contains it with --images"
        for name, (file, *_) in contents.items()
    ]
    if faults:
        raise DataError(faults)
    return Export(classes, tuple(annotated))


def _content(file: Path) -> tuple[str, tuple[int, int], list[dict[str, Any]]]:
    """Returns (image name, image size, shapes).

    Raises:
        ValueError: the file is invalid.
    """
    try:
        body = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from error
    body = body if isinstance(body, dict) else {}
    name, shapes = body.get("imagePath"), body.get("shapes")
    size = image_size(body.get("imageHeight"), body.get("imageWidth"))
    if not isinstance(name, str) or not name or size is None:
        raise ValueError("imagePath, imageHeight or imageWidth is missing or invalid")
    if not isinstance(shapes, list) or not all(
        isinstance(shape, dict)
        and isinstance(shape.get("label"), str)
        and shape["label"]
        for shape in shapes
    ):
        raise ValueError("shapes must be a list, and each must have a label")
    return PureWindowsPath(name).name, size, shapes  # accepts both kinds of slashes


def _label(
    file: Path,
    size: tuple[int, int],
    shapes: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> np.ndarray:
    """Draws the shapes of an image, uint8 `[H, W]`."""
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
    """Returns the outline of a shape as x1, y1, x2, y2, ...

    Raises:
        ValueError: the shape is neither a polygon nor a rectangle.
    """
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if not isinstance(points, list) or not all(
        isinstance(point, list) and len(point) == 2 for point in points
    ):
        raise ValueError("points must be a list of [x, y]")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points
        return [left, top, right, top, right, bottom, left, bottom]
    if kind != "polygon":
        raise ValueError(f"is a {kind}; only polygons and rectangles are supported")
    return [coordinate for point in points for coordinate in point]
