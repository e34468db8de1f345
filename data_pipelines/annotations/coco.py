"""COCO instances: polygons and run lengths to classes of pixels, and classes back.

    {"categories": [{"id": 1, "name": "grasper"}],
     "images": [{"id": 1, "file_name": "video1/f1.jpg", "height": 480, "width": 640}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": ...}]}

Where annotations of a picture overlap, the one that comes later in the file is seen.
Needs pycocotools (the extra "coco").
"""

import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.annotations.pictures import (
    Annotated,
    Export,
    files_under,
    named,
    parts_of,
    with_background,
)
from data_pipelines.annotations.shapes import draw, picture_size, pycocotools
from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.io.files import write_text
from data_pipelines.sources.folder.classes import class_color

_PARTS = ("images", "annotations", "categories")


def find_file(folder: Path) -> Path:
    """The instances file of an exported folder.

    Raises:
        DataError: there is none, or several.
    """
    places = (folder, folder / "annotations")
    found = [path for place in places for path in sorted(place.glob("*.json"))]
    named = [p for p in found if p.name.startswith(("instances", "annotations"))]
    some = named or found
    if len(some) == 1:
        return some[0]
    names = ", ".join(path.name for path in some)
    raise DataError(
        [
            f"{folder}: "
            + (f"several COCO files ({names}); name one" if some else "no COCO file")
        ]
    )


def read(file: Path, images: Path | None = None) -> Export:
    """Reads an instances file; shapes are drawn when they are asked for.

    Args:
        file: JSON.
        images: folder of the pictures; if not given, that of the file, or the one above
            where that is called annotations. Pictures may lie in folders below.

    Raises:
        DataError: a line for every fault, without those of shapes.
    """
    pycocotools()
    body, faults = _content(file), []
    categories, classes = _categories(file, body["categories"], faults)
    above = file.parent.parent if file.parent.name == "annotations" else file.parent
    place = images or above
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_under(place) if place.is_dir() else ():
        found[path.name].append(path)
    shapes: dict[Any, list[Any]] = defaultdict(list)
    known = {image.get("id") for image in body["images"]}
    for shape in body["annotations"]:
        where = f"{file}: annotation {shape.get('id')}"
        if shape.get("image_id") not in known:
            faults.append(f"{where}: image_id {shape.get('image_id')!r} is no image")
        elif shape.get("category_id") not in categories:
            faults.append(
                f"{where}: category_id {shape.get('category_id')!r} is no category"
            )
        shapes[shape.get("image_id")].append(shape)
    pictures = []
    for image in body["images"]:
        where, size = (
            f"{file}: image {image.get('id')}",
            picture_size(image.get("height"), image.get("width")),
        )
        picture = _picture(image, found, place, where, faults)
        if size is None:
            faults.append(f"{where}: height and width must be those of a picture")
        elif picture is not None:
            own = shapes.get(image.get("id"), [])
            draw = functools.partial(_label, file, own, size, categories)
            name = named(image["file_name"])
            pictures.append(Annotated(*name, picture, draw if own else None))
    if len(known) < len(body["images"]):
        faults.append(f"{file}: two images have one id; ids must differ")
    if faults:
        raise DataError(faults)
    return Export(classes, tuple(pictures))


class Writer:
    """Collects labels as run lengths, an annotation for each class of a picture.

    Args:
        folder: that exists; `annotations.json` is written there.
        classes: background first; category ids are their indices.

    Raises:
        DataError: pycocotools is not installed.
    """

    def __init__(self, folder: Path, classes: Sequence[ClassInfo]) -> None:
        self._path, self._mask = folder / "annotations.json", pycocotools()
        self._categories = [
            {"id": index, "name": info.name, "supercategory": ""}
            for index, info in enumerate(classes)
            if index
        ]
        self._images: list[dict[str, Any]] = []
        self._shapes: list[dict[str, Any]] = []

    def add(self, name: str, label: np.ndarray) -> None:
        """Adds the label, uint8 `[H, W]`, of the picture with the file name `name`."""
        number, (height, width) = len(self._images) + 1, label.shape
        self._images.append(
            {"id": number, "file_name": name, "height": height, "width": width}
        )
        for category in self._categories:
            inside = label == category["id"]
            if not inside.any():
                continue
            runs = self._mask.encode(np.asfortranarray(inside.astype(np.uint8)))
            box = [float(side) for side in self._mask.toBbox(runs)]
            counts = runs["counts"].decode("ascii")
            self._shapes.append(
                {
                    "id": len(self._shapes) + 1,
                    "image_id": number,
                    "category_id": category["id"],
                    "segmentation": {"size": [height, width], "counts": counts},
                    "area": int(inside.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )

    def close(self) -> None:
        """Writes the file; `WriteError` if it cannot be written."""
        parts = (self._images, self._shapes, self._categories)
        body = dict(zip(_PARTS, parts, strict=True))
        write_text(self._path, json.dumps(body) + "\n")


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        body = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError([f"{file}: not valid JSON ({error})"]) from error
    for part in _PARTS:
        listed = body.get(part) if isinstance(body, dict) else None
        if not isinstance(listed, list) or not all(isinstance(x, dict) for x in listed):
            raise DataError([f"{file}: {part} must be a list, as in COCO instances"])
    return body


def _categories(
    file: Path, listed: Sequence[dict[str, Any]], faults: list[str]
) -> tuple[dict[Any, int], tuple[ClassInfo, ...]]:
    """Class indices by category id, and the classes."""
    names = [category.get("name") for category in listed]
    ids = [category.get("id") for category in listed]
    if not all(isinstance(name, str) and name for name in names):
        faults.append(f"{file}: categories: each must have a name")
    elif len(set(names)) < len(names) or len(set(map(str, ids))) < len(ids):
        faults.append(f"{file}: categories: names and ids must differ")
    else:
        plain = [ClassInfo(str(name), (0, 0, 0)) for name in names]
        order = [info.name for info in with_background(plain)]
        classes = [ClassInfo(name, class_color(i)) for i, name in enumerate(order)]
        if len(classes) > IGNORE:
            faults.append(f"{file}: {len(classes)} classes; {IGNORE} are possible")
        indices = (order.index(str(name)) for name in names)
        return dict(zip(ids, indices, strict=True)), tuple(classes)
    return {}, ()


def _picture(
    image: dict[str, Any],
    found: dict[str, list[Path]],
    place: Path,
    where: str,
    faults: list[str],
) -> Path | None:
    """The picture whose path ends as `file_name` says."""
    name = image.get("file_name")
    if not isinstance(name, str) or not parts_of(name):
        faults.append(f"{where}: file_name must be a text")
        return None
    parts = parts_of(name)
    same = [p for p in found.get(parts[-1], ()) if p.parts[-len(parts) :] == parts]
    if len(same) != 1:
        what = "no such picture" if not same else f"{len(same)} such pictures"
        faults.append(
            f"{where}: file_name {name!r}: {what} in {place}; give the folder that "
            "holds it with --images"
        )
        return None
    return same[0]


def _label(
    file: Path,
    shapes: Sequence[dict[str, Any]],
    size: tuple[int, int],
    categories: dict[Any, int],
) -> np.ndarray:
    label, faults = np.zeros(size, np.uint8), []
    for shape in shapes:
        try:
            inside = draw(shape.get("segmentation"), size)
        except ValueError as error:
            faults.append(f"{file}: annotation {shape.get('id')}: {error}")
        else:
            label[inside] = categories[shape["category_id"]]
    if faults:
        raise DataError(faults)
    return label
