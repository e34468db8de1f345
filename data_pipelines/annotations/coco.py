"""Reads and writes COCO instances: polygons and run lengths.

    {"categories": [{"id": 1, "name": "grasper"}],
     "images": [{"id": 1, "file_name": "video1/f1.jpg", "height": 480, "width": 640}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": ...}]}

Where annotations of an image overlap, the later one in the file wins. Needs pycocotools
(the extra "coco").
"""

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.annotations.images import (
    AnnotatedImage,
    Export,
    background_first,
    find_files,
    path_parts,
    video_and_frame,
)
from data_pipelines.annotations.shapes import draw, image_size, require_pycocotools
from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.io.files import write_text
from data_pipelines.sources.folder.classes import class_color

# The lists of a COCO instances file.
_PARTS = ("images", "annotations", "categories")


def find_file(folder: Path) -> Path:
    """Returns the instances file of an exported folder.

    Raises:
        DataError: there is none, or several.
    """
    parents = (folder, folder / "annotations")
    files = [path for parent in parents for path in sorted(parent.glob("*.json"))]
    prefixes = ("instances", "annotations")
    candidates = [path for path in files if path.name.startswith(prefixes)] or files
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise DataError([f"{folder}: no COCO file"])
    names = ", ".join(path.name for path in candidates)
    raise DataError([f"{folder}: several COCO files ({names}); name one"])


def read(file: Path, images: Path | None = None) -> Export:
    """Reads an instances file; shapes are drawn on demand.

    Args:
        file: the JSON file.
        images: folder of the images, which may be in subfolders. None: the folder of
            the file, or its parent if that folder is named annotations.

    Raises:
        DataError: has a line for every error, except errors in shapes.
    """
    require_pycocotools()
    body, faults = _content(file), []
    categories, classes = _categories(file, body["categories"], faults)
    parent = file.parent.parent if file.parent.name == "annotations" else file.parent
    folder = images or parent
    files: dict[str, list[Path]] = defaultdict(list)
    for path in find_files(folder) if folder.is_dir() else ():
        files[path.name].append(path)
    ids = {entry.get("id") for entry in body["images"]}
    shapes: dict[Any, list[Any]] = defaultdict(list)
    for shape in body["annotations"]:
        place = f"{file}: annotation {shape.get('id')}"
        image_id, category_id = shape.get("image_id"), shape.get("category_id")
        if image_id not in ids:
            faults.append(f"{place}: image_id {image_id!r} is not an image")
        elif category_id not in categories:
            faults.append(f"{place}: category_id {category_id!r} is not a category")
        shapes[image_id].append(shape)
    annotated = []
    for entry in body["images"]:
        place = f"{file}: image {entry.get('id')}"
        size = image_size(entry.get("height"), entry.get("width"))
        path = _image_file(entry, files, folder, place, faults)
        if size is None:
            faults.append(f"{place}: height and width are not those of an image")
        elif path is not None:
            own_shapes = shapes.get(entry.get("id"), [])
            label = functools.partial(_label, file, own_shapes, size, categories)
            name = video_and_frame(entry["file_name"])
            annotated.append(AnnotatedImage(*name, path, label if own_shapes else None))
    if len(ids) < len(body["images"]):
        faults.append(f"{file}: two images have the same id; ids must differ")
    if faults:
        raise DataError(faults)
    return Export(classes, tuple(annotated))


class Writer:
    """Writes labels as run lengths, one annotation for each class of an image.

    Args:
        folder: an existing folder, in which `annotations.json` is written.
        classes: background first; category ids are their indices.

    Raises:
        DataError: pycocotools is not installed.
    """

    def __init__(self, folder: Path, classes: Sequence[ClassInfo]) -> None:
        self._path = folder / "annotations.json"
        self._mask = require_pycocotools()
        self._categories = [
            {"id": index, "name": info.name, "supercategory": ""}
            for index, info in enumerate(classes)
            if index
        ]
        self._images: list[dict[str, Any]] = []
        self._shapes: list[dict[str, Any]] = []

    def add(self, name: str, label: np.ndarray) -> None:
        """Adds the label, uint8 `[H, W]`, of the image with the file name `name`."""
        number, (height, width) = len(self._images) + 1, label.shape
        self._images.append(
            {"id": number, "file_name": name, "height": height, "width": width}
        )
        for category in self._categories:
            mask = label == category["id"]
            if not mask.any():
                continue
            runs = self._mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            box = [float(side) for side in self._mask.toBbox(runs)]
            counts = runs["counts"].decode("ascii")
            self._shapes.append(
                {
                    "id": len(self._shapes) + 1,
                    "image_id": number,
                    "category_id": category["id"],
                    "segmentation": {"size": [height, width], "counts": counts},
                    "area": int(mask.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )

    def close(self) -> None:
        """Writes the file.

        Raises:
            WriteError: the file cannot be written.
        """
        parts = (self._images, self._shapes, self._categories)
        body = dict(zip(_PARTS, parts, strict=True))
        write_text(self._path, json.dumps(body) + "\n")


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Reads the file and checks that its parts are lists of objects."""
    try:
        body = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError([f"{file}: not valid JSON ({error})"]) from error
    for part in _PARTS:
        items = body.get(part) if isinstance(body, dict) else None
        if not isinstance(items, list) or not all(isinstance(x, dict) for x in items):
            raise DataError([f"{file}: {part} must be a list, as in COCO instances"])
    return body


def _categories(
    file: Path, categories: Sequence[dict[str, Any]], faults: list[str]
) -> tuple[dict[Any, int], tuple[ClassInfo, ...]]:
    """Returns class indices by category id, and the classes.

    If the categories are invalid, both are empty and errors are added to `faults`.
    """
    names = [category.get("name") for category in categories]
    ids = [category.get("id") for category in categories]
    if not all(isinstance(name, str) and name for name in names):
        faults.append(f"{file}: categories: each must have a name")
    elif len(set(names)) < len(names) or len(set(map(str, ids))) < len(ids):
        faults.append(f"{file}: categories: names and ids must differ")
    else:
        colorless = [ClassInfo(str(name), (0, 0, 0)) for name in names]
        order = [info.name for info in background_first(colorless)]
        classes = [ClassInfo(name, class_color(i)) for i, name in enumerate(order)]
        if len(classes) > IGNORE:
            faults.append(f"{file}: {len(classes)} classes; at most {IGNORE} are valid")
        indices = (order.index(str(name)) for name in names)
        return dict(zip(ids, indices, strict=True)), tuple(classes)
    return {}, ()


def _image_file(
    entry: dict[str, Any],
    files: dict[str, list[Path]],
    folder: Path,
    place: str,
    faults: list[str],
) -> Path | None:
    """Returns the image file whose path ends with the `file_name` of an entry.

    Args:
        entry: the entry of the image.
        files: image files in `folder`, by name.
        folder: the folder, for the message.
        place: place of the entry, for the message.
        faults: errors are added to it.
    """
    name = entry.get("file_name")
    if not isinstance(name, str) or not path_parts(name):
        faults.append(f"{place}: file_name must be text")
        return None
    parts = path_parts(name)
    matches = [p for p in files.get(parts[-1], ()) if p.parts[-len(parts) :] == parts]
    if len(matches) != 1:
        count = f"{len(matches)} such images" if matches else "no such image"
        faults.append(
            f"{place}: file_name {name!r}: {count} in {folder}; name the folder that "
            "contains it with --images"
        )
        return None
    return matches[0]


def _label(
    file: Path,
    shapes: Sequence[dict[str, Any]],
    size: tuple[int, int],
    categories: dict[Any, int],
) -> np.ndarray:
    """Draws the shapes of an image, uint8 `[H, W]`."""
    label, faults = np.zeros(size, np.uint8), []
    for shape in shapes:
        try:
            mask = draw(shape.get("segmentation"), size)
        except ValueError as error:
            faults.append(f"{file}: annotation {shape.get('id')}: {error}")
        else:
            label[mask] = categories[shape["category_id"]]
    if faults:
        raise DataError(faults)
    return label
