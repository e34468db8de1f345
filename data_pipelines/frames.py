"""Videos as numbered frames: the `FrameSource` interface and views of sources.

Every dataset is a `FrameSource`. The views defined here (`select_videos`,
`keep_labels`, `resize_frames`, `cache_frames`) take a source and return a source, so
they can be combined:

    source = cache_frames(resize_frames(open_folder("videos"), size=(256, 320)))

Images are uint8 `[H, W, 3]` RGB. Labels are uint8 `[h, w]` class indices, `IGNORE`
where a pixel is not scored. A label keeps its stored size, at which scores are
computed; training resizes it to the size of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    "FewLabels",
    "FrameSource",
    "RawSource",
    "Resized",
    "Selected",
    "Video",
    "cache_frames",
    "check",
    "keep_labels",
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
    """A class: its name and its display color (R, G, B in 0..255)."""

    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Video:
    """A video.

    Attributes:
        name: name of the video.
        frames: names of the frames, in time order.
        unlabeled: indices of the frames without a label, known before masks are read.
    """

    name: str
    frames: tuple[str, ...]
    unlabeled: frozenset[int] = frozenset()


class FrameSource(Protocol):
    """Random access to the frames of several videos. Class 0 is the background.

    Implementations must be thread-safe. Callers must not modify the returned arrays.
    """

    @property
    def classes(self) -> tuple[ClassInfo, ...]: ...

    @property
    def videos(self) -> tuple[Video, ...]: ...

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image, uint8 `[H, W, 3]` RGB."""
        ...

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """Returns the classes, uint8 `[h, w]` at stored size; None if unlabeled."""
        ...


@runtime_checkable
class RawSource(FrameSource, Protocol):
    """A source that reads the files of a dataset as distributed."""

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of a frame: the image, then those of the label."""
        ...

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns label values that belong to no class; call `label` before.

        Returns:
            Pixel counts by value or color, for each label file that has any.
        """
        ...


def check(source: FrameSource) -> None:
    """Decodes every image and label of `source`.

    Raises:
        DataError: some frames cannot be read; has the errors of all frames, in order.
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
    """A view of some videos of `source`. Made by `select_videos`.

    Attributes:
        source: the source of all videos.
        numbers: indices of the selected videos in `source`.
    """

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
class FewLabels:
    """A view of `source` in which some frames have no label. Made by `keep_labels`.

    Attributes:
        source: the source.
        videos: its videos; `Video.unlabeled` includes the frames without a label here.
    """

    source: FrameSource
    videos: tuple[Video, ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self.source.classes

    def image(self, video: int, frame: int) -> np.ndarray:
        return self.source.image(video, frame)

    def label(self, video: int, frame: int) -> np.ndarray | None:
        if frame in self.videos[video].unlabeled:
            return None
        return self.source.label(video, frame)


@dataclass(frozen=True)
class Resized:
    """A view of `source` with resized images. Made by `resize_frames`.

    Attributes:
        source: the source; its labels are not resized.
        size: (H, W) of the images.
    """

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
    """A view of `source` that keeps images and labels in memory.

    Made by `cache_frames`. If several threads read a frame for the first time, each
    decodes it and all return the array stored first. Arrays are read-only.
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
            self._images.setdefault(key, _read_only(self._source.image(video, frame)))
        return self._images[key]

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """Returns the label at its stored size, which is not cached."""
        return self._source.label(video, frame)

    def label_resized(self, video: int, frame: int) -> np.ndarray | None:
        """Returns the label at the image's size, uint8 `[H, W]`, nearest neighbor."""
        key = (video, frame)
        if key not in self._labels:
            label = self._source.label(video, frame)
            if label is not None:
                size = self.image(video, frame).shape[:2]
                label = _read_only(resize_label(label, size))
            self._labels.setdefault(key, label)
        return self._labels[key]


def select_videos(source: FrameSource, names: Sequence[str]) -> Selected:
    """Returns a view of the named videos, in the order of `names`.

    Raises:
        DataError: a name is unknown or occurs twice.
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


def keep_labels(source: FrameSource, count: int) -> FewLabels:
    """Returns a view in which `count` frames keep their label, spread evenly.

    The frames are the middle ones of `count` equal parts of all labeled frames, video
    after video. All frames remain, for methods that use unlabeled ones.

    Raises:
        DataError: there are fewer labels.
    """
    labeled = [
        (number, frame)
        for number, video in enumerate(source.videos)
        for frame in range(len(video.frames))
        if frame not in video.unlabeled
    ]
    if not 1 <= count <= len(labeled):
        raise DataError(
            [f"cannot keep {count} labels; the videos have {len(labeled)} of them"]
        )
    kept = {labeled[(2 * i + 1) * len(labeled) // (2 * count)] for i in range(count)}
    videos = tuple(
        replace(
            video,
            unlabeled=frozenset(
                frame
                for frame in range(len(video.frames))
                if (number, frame) not in kept
            ),
        )
        for number, video in enumerate(source.videos)
    )
    return FewLabels(source, videos)


def resize_frames(source: FrameSource, size: tuple[int, int]) -> Resized:
    """Returns a view with images resized to `size` (H, W); labels keep their size.

    Raises:
        DataError: the size is not positive.
    """
    if min(size) < 1:
        raise DataError([f"size {size}: height and width must be at least 1"])
    return Resized(source, (int(size[0]), int(size[1])))


def cache_frames(source: FrameSource) -> Cached:
    """Returns a view that keeps frames in memory, 4 bytes per pixel of a labeled frame.

    Apply it after `resize_frames`, so that the small images are cached: 1800 frames of
    512x640 take 2.4 GB.
    """
    return Cached(source)


def _read_only(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array
