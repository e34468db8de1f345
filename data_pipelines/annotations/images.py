"""Annotated images, and how images are found and named."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data_pipelines.frames import ClassInfo
from data_pipelines.io.pairs import PICTURES, is_skipped, natural_key


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its annotation.

    Attributes:
        video: name of the video; "" if the annotations do not name it.
        frame: name of the frame.
        file: the image file.
        label: reads the classes, uint8 `[H, W]`, and raises `DataError` if they are
            invalid. None if the image has no annotation.
    """

    video: str
    frame: str
    file: Path
    label: Callable[[], np.ndarray] | None


@dataclass(frozen=True)
class Export:
    """An export of an annotation tool.

    Attributes:
        classes: the classes, background first.
        images: the images.
    """

    classes: tuple[ClassInfo, ...]
    images: tuple[AnnotatedImage, ...]


def path_parts(path: str) -> tuple[str, ...]:
    """Returns the folders and the name of a path, written on any system.

    Absolute paths and URLs are those of another machine; only the name is returned.
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or re.match("[A-Za-z]+:", path):
        return (pure.name,)
    return tuple(part for part in pure.parts if part not in (".", ".."))


def video_and_frame(path: str) -> tuple[str, str]:
    """Returns (video, frame) for an image's path: its joined folders, and its stem."""
    *folders, name = path_parts(path)
    video = "_".join(part for part in folders if part != "images")
    return video, PurePosixPath(name).stem


def find_files(folder: Path, suffixes: tuple[str, ...] = PICTURES) -> list[Path]:
    """Returns the files with these suffixes in a folder and its subfolders, sorted."""
    paths = (
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and path.is_file()
    )
    paths = [path for path in paths if not any(map(is_skipped, path.parts))]
    return [folder / path for path in sorted(paths, key=lambda p: natural_key(str(p)))]


def background_first(classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
    """Moves the class "background" to the front, or adds a black one."""
    first = [info for info in classes if info.name.lower() == "background"]
    others = [info for info in classes if info.name.lower() != "background"]
    return (*(first or [ClassInfo("background", (0, 0, 0))]), *others)
