"""Annotated pictures to a folder of videos that trains: all of it or nothing."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from data_pipelines.annotations.pictures import Annotated, Export
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

    Pictures are copied as they are; masks are palette PNGs whose value is the class.

    Args:
        exports: by name; that is a video's name where an export does not tell it.
        out: new or empty.
        classes: in the order of their indices, background first; if not given, those of
            the exports in theirs. The same name is the same class.
        empty: what a picture without annotations is: background, or not labeled and
            then without a mask; "ask" refuses such pictures.
        log: called with lines of text.

    Raises:
        DataError: a line for every fault; nothing is written then.
        WriteError: `out` cannot be written.
    """
    faults: list[str] = []
    table = list(classes or _union(exports.values()))
    if len(table) > IGNORE:
        faults.append(f"{len(table)} classes; {IGNORE} are possible")
    for info in table:
        if fault := text_fault(info.name):
            faults.append(f"the class name {info.name!r} {fault}; change it")
    videos = _videos(exports, table, faults)
    everything = [item for frames in videos.values() for item, _ in frames]
    blank = [item for item in everything if item.label is None]
    if blank and empty == "ask":
        faults.append(
            f"{len(blank)} of {len(everything)} pictures have no annotation, such as "
            f"{blank[0].picture}; say what they are: --empty background (nothing is "
            "there to label) or --empty unlabeled (not labeled yet)"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        faults.append(f"{out}: is not an empty folder; name another --out")
    if faults:
        raise DataError(faults)
    work = out.with_name(f".{out.name}.partial")
    with folder_lock(work) as ours, as_write_error(out):
        if not ours:
            raise DataError([f"{out}: another process writes it; name another --out"])
        try:
            for path in work.iterdir():  # of a run that was killed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _write(work, table, videos, empty, log)
            if out.exists():
                out.rmdir()
            os.replace(work, out)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


_Frames = list[tuple[Annotated, np.ndarray]]


def _union(exports: Iterable[Export]) -> list[ClassInfo]:
    """The classes of all, background first; a name has the color it has first."""
    named: dict[str, ClassInfo] = {}
    for export in exports:
        for index, info in enumerate(export.classes):
            named.setdefault("background" if index == 0 else info.name, info)
    return list(named.values())


def _videos(
    exports: Mapping[str, Export], table: Sequence[ClassInfo], faults: list[str]
) -> dict[str, _Frames]:
    """By name, each picture with a table of its class indices' new values."""
    order = {info.name: index for index, info in enumerate(table)}
    videos: dict[str, _Frames] = {}
    for name, export in exports.items():
        new = np.zeros(256, np.uint8)
        for index, info in enumerate(export.classes):
            if index and info.name not in order:
                known = ", ".join(order)
                faults.append(f"{name}: class {info.name!r} is none of {known}")
            new[index] = order.get(info.name, 0) if index else 0
        for item in export.pictures:
            several = len(exports) > 1 and item.video
            video = f"{name}_{item.video}" if several else item.video or name
            videos.setdefault(video, []).append((item, new))
    for video, frames in videos.items():
        frames.sort(key=lambda pair: natural_key(pair[0].frame))
        names = [item.frame for item, _ in frames]
        faults += [
            f"{item.picture}: the frame {item.frame} of video {video} is there twice"
            for item, _ in frames
            if names.count(item.frame) > 1
        ]
        wrong = {name: name_fault(name) for name in (video, *names)}
        faults += [f"the name {n!r} {fault}" for n, fault in wrong.items() if fault]
    return videos


def _write(
    work: Path,
    table: Sequence[ClassInfo],
    videos: dict[str, _Frames],
    empty: Empty,
    log: Callable[[str], None],
) -> None:
    entries = [{"name": info.name, "color": list(info.color)} for info in table]
    text = json.dumps(entries, indent=1, ensure_ascii=False)
    (work / "classes.json").write_text(text + "\n", encoding="utf-8")
    faults: list[str] = []
    shown = np.zeros(256, np.int64)
    for video, frames in videos.items():
        for kind in ("frames", "masks"):
            (work / video / kind).mkdir(parents=True)
        masks = 0
        for item, new in frames:
            file = f"{item.frame}{item.picture.suffix}"
            try:
                label = _label(item, new, empty)
                shutil.copyfile(item.picture, work / video / "frames" / file)
            except DataError as error:
                faults += error.faults
                continue
            if label is not None:
                _save(work / video / "masks" / f"{item.frame}.png", label, table)
                shown += np.bincount(np.unique(label), minlength=256)
                masks += 1
        log(f"{video}: {len(frames)} frames, {masks} masks")
    if faults:
        raise DataError(faults)
    try:
        open_folder(work, allow_missing=True)  # as those do who train with it
    except DataError as error:
        lines = (line.replace(f"{work}/", "") for line in error.faults)
        raise DataError(lines) from None
    for index, info in enumerate(table):
        log(f"class {index} ({info.name}): in {shown[index]} masks")


def _label(item: Annotated, new: np.ndarray, empty: Empty) -> np.ndarray | None:
    """The classes of a picture, at its size."""
    size = read_size(item.picture)
    if item.label is None:
        return np.zeros(size, np.uint8) if empty == "background" else None
    label = new[item.label()]
    if label.shape != size:
        shapes = [f"{width}x{height}" for height, width in (size, label.shape)]
        raise DataError(
            [
                f"{item.picture}: is {shapes[0]} (width x height) but its annotation "
                f"{shapes[1]}; give the pictures that were annotated"
            ]
        )
    return label


def _save(path: Path, label: np.ndarray, table: Sequence[ClassInfo]) -> None:
    image = Image.fromarray(label)
    colors = [channel for info in table for channel in info.color]
    # All 256 entries, or Pillow packs few classes into fewer bits.
    image.putpalette(colors + [128] * (768 - len(colors)))
    image.save(path)
