"""Frame sources: folders, video files, cameras, network streams, rendered video.

    for captured in open_source("theatre.mp4"):
        session.step(captured.image, captured.seconds, captured.damage)

Folders and rendered video have no extra dependencies; the others need PyAV (the extra
"video").
"""

import glob
import itertools
import logging
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from data_pipelines.io.images import DataError, read_image, read_size
from data_pipelines.io.names import name_fault
from data_pipelines.io.pairs import (
    PICTURES,
    frames_and_masks,
    is_skipped,
    list_files,
    natural_key,
)
from data_pipelines.synthetic import endless

_log = logging.getLogger(__name__)

RENDERED = "synthetic"
VIDEOS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".mxf", ".3gp"),
)
"""Suffixes by which a video is known among other files."""

RATE = 25.0
"""Frames per second of sources that do not declare a rate."""


class Captured(NamedTuple):
    """A captured frame.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        seconds: timestamp on the source's clock.
        name: name for files about this frame; unique within its source.
        damage: description of the damage; empty for a clean frame. A frame that cannot
            be decoded at all may be black.
    """

    image: np.ndarray
    seconds: float
    name: str
    damage: str = ""


class SourceError(ValueError):
    """Raised when a source cannot be opened or read; the message says why."""


class Source(Protocol):
    """An iterable of frames in order. Each iteration restarts or reconnects.

    Attributes:
        rate: frames per second; None if not known.
        live: whether frames arrive in real time and are lost if they are not read.
    """

    @property
    def rate(self) -> float | None: ...

    @property
    def live(self) -> bool: ...

    def __iter__(self) -> Iterator[Captured]: ...


@dataclass(frozen=True)
class Folder:
    """The images of a folder, in natural order of their names.

    An image that cannot be read becomes a black frame with `damage` set, so that the
    frame indices stay correct.

    Attributes:
        paths: the images.
        start: seconds to skip; the last image is never skipped.

    Raises:
        SourceError: when iterated, if no image can be read.
    """

    paths: tuple[Path, ...]
    rate: float | None = RATE
    live: bool = False
    start: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds from the first image to the end of the last."""
        return len(self.paths) / RATE

    def __iter__(self) -> Iterator[Captured]:
        blank: np.ndarray | None = None
        first = min(round(self.start * RATE), len(self.paths) - 1)
        for index, path in enumerate(self.paths[first:], first):
            damage = ""
            try:
                image = read_image(path)
            except (DataError, OSError) as error:
                damage = " ".join(str(error).split())
                if blank is None:
                    blank = np.zeros((*self._some_size(damage), 3), np.uint8)
                image = blank
            else:
                blank = np.zeros_like(image)
            yield Captured(image, index / RATE, path.stem, damage)

    def _some_size(self, damage: str) -> tuple[int, int]:
        """Returns the size of the first image that can be read."""
        for path in self.paths:
            try:
                read_image(path)
                return read_size(path)
            except (DataError, OSError):
                continue
        raise SourceError(f"no image can be read; the first error: {damage}")


@dataclass(frozen=True)
class Rendered:
    """The rendered video of `data_pipelines.synthetic`.

    Attributes:
        size: (H, W).
        frames: number of frames. None: endless.
        seed: seed of the scene.
    """

    size: tuple[int, int] = (256, 320)
    frames: int | None = None
    seed: int = 0
    rate: float | None = RATE
    live: bool = False

    def __iter__(self) -> Iterator[Captured]:
        video = itertools.islice(endless(self.seed, self.size, RATE), self.frames)
        for index, image in enumerate(video):
            yield Captured(image, index / RATE, f"{index:06}")


def open_source(text: str) -> Source:
    """Opens the source named by a user.

    Args:
        text: a folder of images or a pattern of their names ("DIR/*.png"), a video
            file, the number or device path of a camera, an address such as
            rtsp://..., or "synthetic".

    Raises:
        SourceError: there is no such source, or PyAV is required but not installed.
    """
    if text == RENDERED:
        return Rendered()
    path = Path(text)
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError):  # no such file, or not a valid file name
        kind = 0
    if stat.S_ISDIR(kind):
        return _folder(path, _frames_of(path))
    if not kind and is_pattern(text):
        found = map(Path, glob.glob(text, recursive=True))
        pictures = [p for p in found if p.suffix.lower() in PICTURES and p.is_file()]
        return _folder(path, sorted(pictures, key=lambda p: natural_key(p.name)))
    from dmnet_jax.video.pyav import Camera, VideoFile

    if text.isdecimal():
        return Camera(text)
    if stat.S_ISREG(kind):
        return VideoFile(path)
    if text.startswith("/dev/") or "://" in text:
        return Camera(text)
    raise SourceError(
        f"{text}: no such file or folder; pass a video, a folder of images, a camera "
        f'number, an address (rtsp://...) or "{RENDERED}"'
    )


def is_pattern(text: str) -> bool:
    """Whether a source is a pattern of paths, and no path itself."""
    return glob.has_magic(text) and "://" not in text and not Path(text).exists()


def sources_in(folder: Path, alone: bool = False) -> list[Path]:
    """What `open_source` may open in a folder: videos, folders of pictures.

    A folder that holds one called frames stands for that one.

    Args:
        folder: to look in.
        alone: whether to look at `folder` itself instead, which may be a file.

    Returns:
        In natural order.
    """
    found = []
    within = [folder] if alone else folder.iterdir()
    for path in sorted(within, key=lambda path: natural_key(path.name)):
        inner = path / "frames" if (path / "frames").is_dir() else path
        if is_skipped(path.name) or (inner.is_dir() and not list_files(inner)):
            continue
        if inner.is_dir() or path.suffix.lower() in VIDEOS:
            found.append(inner)
    return found


def _frames_of(folder: Path) -> list[Path]:
    """A folder's pictures, without masks (f1_mask.png) if there is one for each."""
    frames, masks = frames_and_masks(folder, [])
    alike = any(path.stem == stem for stem, path in masks.items())
    if not masks or masks.keys() != frames.keys() or alike:
        return list_files(folder)
    _log.warning(
        "%s: %d of its pictures are masks of the others by their names, and are left "
        "out (%s)",
        *(folder, len(masks), next(iter(masks.values())).name),
    )
    return list(frames.values())


def _folder(path: Path, files: list[Path]) -> Folder:
    """Pictures that training would take too, all in one folder or called apart."""
    if not files:
        raise SourceError(f"{path}: contains no {', '.join(PICTURES)} files, no videos")
    for file in files:
        fault = name_fault(file.name)
        if fault:
            raise SourceError(f"{path}: the name {file.name!r} {fault}; rename it")
    stems = Counter(file.stem for file in files)
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{path}: two images are named {twice}; rename one")
    return Folder(tuple(files))
