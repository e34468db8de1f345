"""Videos as numbered frames: what a source of frames is, and views of sources.

Every dataset is a `FrameSource`. The views defined here (`select_videos`,
`resize_frames`, `cache_frames`) take a source and return a source, so they can be
combined:

    source = cache_frames(resize_frames(open_folder("videos"), size=(256, 320)))

Images are uint8 `[H, W, 3]` RGB, labels uint8 `[h, w]` class indices with `IGNORE`
where a pixel is not scored. A label keeps the size at which it is stored, because
scores are taken at that size; training takes it at the image's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from data_pipelines.io.images import (
    IGNORE,
    MAX_PIXELS,
    DataError,
    read_gray,
    read_image,
    read_label,
    read_mask_colors,
    read_size,
    resize_image,
    resize_label,
)

__all__ = [
    "IGNORE",
    "MAX_PIXELS",
    "Cached",
    "ClassInfo",
    "DataError",
    "FrameSource",
    "RawSource",
    "Resized",
    "Selected",
    "Video",
    "cache_frames",
    "check",
    "read_gray",
    "read_image",
    "read_label",
    "read_mask_colors",
    "read_size",
    "resize_image",
    "resize_label",
    "resize_frames",
    "select_videos",
]


@dataclass(frozen=True)
class ClassInfo:
    """A class a pixel can have: its name and its display color (R, G, B in 0..255)."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Video:
    """A video: its name, its frames' names in time order, and which lack a label.

    `unlabeled` holds frame indices, so that labeled frames are known without
    reading a mask.
    """

    name: str
    frames: tuple[str, ...]
    unlabeled: frozenset[int] = frozenset()


class FrameSource(Protocol):
    """Random access to the frames of some videos. Class 0 is the background.

    Implementations must be safe to call from several threads at once, and the arrays
    they return are to be read, not written.
    """

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    @property
    def videos(self) -> tuple[Video, ...]: ...

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]` RGB."""
        ...

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """The classes, uint8 `[h, w]` at the stored size; None if there is no mask."""
        ...


@runtime_checkable
class RawSource(FrameSource, Protocol):
    """A source that reads a dataset's own files."""

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """The files of a frame, its picture first, then those of its label."""
        ...

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Label pixels that are no class's, known once the label was read.

        Returns:
            For each label file that has any: pixels by value or color.
        """
        ...


def check(source: FrameSource) -> None:
    """Decodes every image and label of `source`.

    Raises:
        DataError: with the faults of all frames, in order.
    """
    faults: list[str] = []
    for number, video in enumerate(source.videos):
        for frame in range(len(video.frames)):
            for read in (source.image, source.label):
                try:
                    read(number, frame)
                except DataError as error:
                    faults += error.faults
                except OSError as error:
                    faults.append(str(error))
    if faults:
        raise DataError(faults)


@dataclass(frozen=True)
class Selected:
    """The videos of `source` with the numbers `numbers`, in that order."""

    source: FrameSource
    numbers: tuple[int, ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self.source.classes

    @property
    def videos(self) -> tuple[Video, ...]:
        return tuple(self.source.videos[number] for number in self.numbers)

    def image(self, video: int, frame: int) -> np.ndarray:
        return self.source.image(self.numbers[video], frame)

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return self.source.label(self.numbers[video], frame)


@dataclass(frozen=True)
class Resized:
    """`source` with images of `size` (H, W) and labels as they are stored."""

    source: FrameSource
    size: tuple[int, int]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self.source.classes

    @property
    def videos(self) -> tuple[Video, ...]:
        return self.source.videos

    def image(self, video: int, frame: int) -> np.ndarray:
        return resize_image(self.source.image(video, frame), self.size)

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return self.source.label(video, frame)


class Cached:
    """`source` with every image and image-sized label kept in memory once read.

    Threads may race to read a frame; each then decodes it, and all get the first one
    stored. Stored arrays are marked read-only.
    """

    def __init__(self, source: FrameSource):
        self._source = source
        self._images: dict[tuple[int, int], np.ndarray] = {}
        self._labels: dict[tuple[int, int], np.ndarray | None] = {}
        self.classes = source.classes
        self.videos = source.videos

    def image(self, video: int, frame: int) -> np.ndarray:
        key = (video, frame)
        if key not in self._images:
            self._images.setdefault(key, _frozen(self._source.image(video, frame)))
        return self._images[key]

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """The label at its stored size, read anew each time."""
        return self._source.label(video, frame)

    def label_resized(self, video: int, frame: int) -> np.ndarray | None:
        """The label at the image's size, uint8 `[H, W]`, nearest neighbor."""
        key = (video, frame)
        if key not in self._labels:
            label = self._source.label(video, frame)
            if label is not None:
                size = self.image(video, frame).shape[:2]
                label = _frozen(resize_label(label, size))
            self._labels.setdefault(key, label)
        return self._labels[key]


def select_videos(source: FrameSource, names: Sequence[str]) -> Selected:
    """The videos called `names`, in that order.

    Raises:
        DataError: a name is unknown or given twice.
    """
    known = [video.name for video in source.videos]
    faults = [
        f"no video {name!r}; the videos are {', '.join(known)}"
        for name in names
        if name not in known
    ]
    faults += [
        f"video {name!r} is selected twice; name it once"
        for name in sorted(set(names))
        if list(names).count(name) > 1
    ]
    if faults:
        raise DataError(faults)
    return Selected(source, tuple(known.index(name) for name in names))


def resize_frames(source: FrameSource, size: tuple[int, int]) -> Resized:
    """`source` with its images at `size` = (height, width); labels stay as stored.

    Images are resized bilinearly, with an antialiasing filter when reducing.
    """
    if min(size) < 1:
        raise DataError([f"size {size}: height and width must be at least 1"])
    return Resized(source, (int(size[0]), int(size[1])))


def cache_frames(source: FrameSource) -> Cached:
    """`source` kept in memory as it is read: 4 bytes a pixel of every labeled frame.

    Apply it after `resize_frames`, so that the small images are cached: 1800 frames of
    512x640 take 2.4 GB.
    """
    return Cached(source)


def _frozen(array: np.ndarray) -> np.ndarray:
    kept = np.ascontiguousarray(array)
    kept.setflags(write=False)
    return kept
