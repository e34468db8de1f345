"""An annotated picture, and how pictures are found and named."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data_pipelines.frames import ClassInfo
from data_pipelines.io.pairs import PICTURES, is_skipped, natural_key


@dataclass(frozen=True)
class Annotated:
    """A picture and the classes of its pixels.

    Attributes:
        video: the video's name; empty if the annotations do not tell it.
        frame: the frame's name.
        picture: its file.
        label: reads the classes, uint8 `[H, W]`; `DataError` if they are wrong. None if
            nothing was annotated in it.
    """

    video: str
    frame: str
    picture: Path
    label: Callable[[], np.ndarray] | None


@dataclass(frozen=True)
class Export:
    """What an annotation tool wrote: classes, background first, and pictures."""

    classes: tuple[ClassInfo, ...]
    pictures: tuple[Annotated, ...]


def parts_of(path: str) -> tuple[str, ...]:
    """Folders and name of a picture's path, written on any system.

    The name alone if the path is absolute or an address: it is of another machine.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or re.match("[A-Za-z]+:", path):
        return (pure.name,)
    return tuple(part for part in pure.parts if part not in (".", ".."))


def named(path: str) -> tuple[str, str]:
    """(video, frame) of a picture's path: its folders, joined, and its stem."""
    *folders, name = parts_of(path)
    video = "_".join(part for part in folders if part != "images")
    return video, PurePosixPath(name).stem


def files_under(folder: Path, suffixes: tuple[str, ...] = PICTURES) -> list[Path]:
    """All files of these suffixes in a folder and those in it, in natural order."""
    found = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and path.is_file()
    )
    kept = [path for path in found if not any(map(is_skipped, path.parts))]
    return [folder / path for path in sorted(kept, key=lambda p: natural_key(str(p)))]


def with_background(classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
    """The classes with the one called background first; black if there is none."""
    first = [info for info in classes if info.name.lower() == "background"]
    others = [info for info in classes if info.name.lower() != "background"]
    return (*(first or [ClassInfo("background", (0, 0, 0))]), *others)
