"""Writes annotated images as a folder of videos, completely or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from data_pipelines.annotations.images import AnnotatedImage, Export
from data_pipelines.frames import IGNORE, ClassInfo, DataError, read_size
from data_pipelines.io.files import as_write_error, folder_lock
from data_pipelines.io.names import name_fault, text_fault
from data_pipelines.io.pairs import natural_key
from data_pipelines.sources.folder import open_folder

Empty = Literal["ask", "background", "unlabeled"]


def write_videos(
    exports: Mapping[str, Export],
    out: Path,
    *,
    classes: Sequence[ClassInfo] | None = None,
    empty: Empty = "ask",
    log: Callable[[str], None] = print,
) -> None:
    """Writes `out/VIDEO/frames`, `out/VIDEO/masks` and `out/classes.json`.

    Image files are copied; masks are palette PNGs whose values are classes.

    Args:
        exports: the exports by name, which names the video if the export does not.
        out: a new or empty folder.
        classes: the classes in order, background first; None: those of the exports.
            Equal names are the same class.
        empty: how to label images without annotations: "background", or "unlabeled"
            (without a mask); "ask" raises an error.
        log: called with lines of text.

    Raises:
        DataError: has a line for every error; nothing has been written.
        WriteError: `out` cannot be written.
    """
    faults: list[str] = []
    table = list(classes or _union(exports.values()))
    if len(table) > IGNORE:
        faults.append(f"{len(table)} classes; at most {IGNORE} are valid")
    for info in table:
        if fault := text_fault(info.name):
            faults.append(f"the class name {info.name!r} {fault}; change it")
    videos = _videos(exports, table, faults)
    images = [image for frames in videos.values() for image, _ in frames]
    empty_images = [image for image in images if image.label is None]
    if empty_images and empty == "ask":
        faults.append(
            f"{len(empty_images)} of {len(images)} images have no annotation, such as "
            f"{empty_images[0].file}; say how to label them: --empty background "
            "(nothing to label) or --empty unlabeled (not labeled yet)"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        faults.append(f"{out}: is not an empty folder; choose another --out")
    if faults:
        raise DataError(faults)
    work = out.with_name(f".{out.name}.partial")
    with folder_lock(work) as locked, as_write_error(out):
        if not locked:
            raise DataError([f"{out}: another process writes it; choose another --out"])
        try:
            for path in work.iterdir():  # left by a killed run
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _write(work, table, videos, empty, log)
            if out.exists():
                out.rmdir()
            os.replace(work, out)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


# Images with the table that maps class indices of their export to the final ones.
_Frames = list[tuple[AnnotatedImage, np.ndarray]]


def _union(exports: Iterable[Export]) -> list[ClassInfo]:
    """Returns the classes of all exports, background first, with their first color."""
    classes: dict[str, ClassInfo] = {}
    for export in exports:
        for index, info in enumerate(export.classes):
            classes.setdefault("background" if index == 0 else info.name, info)
    return list(classes.values())


def _videos(
    exports: Mapping[str, Export], table: Sequence[ClassInfo], faults: list[str]
) -> dict[str, _Frames]:
    """Returns the images by video, in order, with their class tables."""
    indices = {info.name: index for index, info in enumerate(table)}
    videos: dict[str, _Frames] = {}
    for name, export in exports.items():
        class_table = np.zeros(256, np.uint8)
        for index, info in enumerate(export.classes):
            if index and info.name not in indices:
                known = ", ".join(indices)
                faults.append(f"{name}: class {info.name!r} is not one of {known}")
            class_table[index] = indices.get(info.name, 0) if index else 0
        for image in export.images:
            prefixed = len(exports) > 1 and image.video
            video = f"{name}_{image.video}" if prefixed else image.video or name
            videos.setdefault(video, []).append((image, class_table))
    for video, frames in videos.items():
        frames.sort(key=lambda pair: natural_key(pair[0].frame))
        names = [image.frame for image, _ in frames]
        faults += [
            f"{image.file}: the frame {image.frame} of video {video} occurs twice"
            for image, _ in frames
            if names.count(image.frame) > 1
        ]
        faults += [
            f"the name {name!r} {fault}"
            for name in dict.fromkeys((video, *names))
            if (fault := name_fault(name))
        ]
    return videos


def _write(
    work: Path,
    table: Sequence[ClassInfo],
    videos: dict[str, _Frames],
    empty: Empty,
    log: Callable[[str], None],
) -> None:
    """Writes all files to the folder `work`."""
    entries = [{"name": info.name, "color": list(info.color)} for info in table]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (work / "classes.json").write_text(text + "\n", encoding="utf-8")
    faults: list[str] = []
    counts = np.zeros(256, np.int64)
    for video, frames in videos.items():
        for kind in ("frames", "masks"):
            (work / video / kind).mkdir(parents=True)
        masks = 0
        for image, class_table in frames:
            file_name = f"{image.frame}{image.file.suffix}"
            try:
                label = _label(image, class_table, empty)
                shutil.copyfile(image.file, work / video / "frames" / file_name)
            except DataError as error:
                faults += error.faults
                continue
            if label is not None:
                _save(work / video / "masks" / f"{image.frame}.png", label, table)
                counts += np.bincount(np.unique(label), minlength=256)
                masks += 1
        log(f"{video}: {len(frames)} frames, {masks} masks")
    if faults:
        raise DataError(faults)
    try:
        open_folder(work, allow_missing=True)  # checks the files, as training does
    except DataError as error:
        lines = (line.replace(f"{work}/", "") for line in error.faults)
        raise DataError(lines) from None
    for index, info in enumerate(table):
        log(f"class {index} ({info.name}): in {counts[index]} masks")


def _label(
    image: AnnotatedImage, class_table: np.ndarray, empty: Empty
) -> np.ndarray | None:
    """Reads the classes of an image, uint8 `[H, W]`."""
    size = read_size(image.file)
    if image.label is None:
        return np.zeros(size, np.uint8) if empty == "background" else None
    label = class_table[image.label()]
    if label.shape != size:
        shapes = [f"{width}x{height}" for height, width in (size, label.shape)]
        raise DataError(
            [
                f"{image.file}: is {shapes[0]} (width x height) but its annotation is "
                f"{shapes[1]}; use the images that were annotated"
            ]
        )
    return label


def _save(path: Path, label: np.ndarray, table: Sequence[ClassInfo]) -> None:
    image = Image.fromarray(label)
    colors = [channel for info in table for channel in info.color]
    # With fewer than 256 entries, Pillow would store fewer bits per pixel.
    image.putpalette(colors + [128] * (768 - len(colors)))
    image.save(path)
