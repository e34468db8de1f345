"""Checks that training and validation videos do not share frames.

Names of videos and hashes of frames are compared. The manifest of prepared data has
hashes of the decoded images and of the original files. Of raw data, only image files
are hashed, and only if the other part has a file of the same length. A frame that was
encoded again is therefore found only in prepared data.
"""

import hashlib
from collections.abc import Container, Iterator
from pathlib import Path

from data_pipelines.frames import DataError, RawSource, Selected
from data_pipelines.prepared import Prepared

# Maximum number of frames in an error message; a duplicate video has hundreds.
_MAX_LISTED = 5


def check_disjoint(train: Selected, val: Selected) -> None:
    """Checks that two selections of videos share neither videos nor frames.

    Args:
        train: training videos of prepared or raw data.
        val: validation videos of the same or other data.

    Raises:
        DataError: names the shared videos, or the first few shared frames.
    """
    names = {video.name for video in train.videos}
    shared = [video.name for video in val.videos if video.name in names]
    if shared:
        raise DataError(
            [
                f"{', '.join(shared)}: among the training and the validation videos; "
                "remove them from one of the two"
            ]
        )
    lengths: Container[int] | None = None
    if not isinstance(train.source, Prepared) and not isinstance(val.source, Prepared):
        lengths = _lengths(train) & _lengths(val)
    train_hashes = dict(_hashes(train, lengths))
    duplicates: dict[str, str] = {}
    for digest, name in _hashes(val, lengths):
        if digest in train_hashes:
            duplicates.setdefault(name, train_hashes[digest])
    if duplicates:
        faults = [
            f"validation {name} is the same image as training {other}"
            for name, other in list(duplicates.items())[:_MAX_LISTED]
        ]
        faults[-1] += (
            f" ({len(duplicates)} such frames); training and validation must not share "
            "frames: remove one of the videos"
        )
        raise DataError(faults)


def _hashes(
    part: Selected, lengths: Container[int] | None
) -> Iterator[tuple[str, str]]:
    """Yields (hash, description) of the frames.

    Args:
        part: selected videos.
        lengths: sizes, in bytes, of the image files to hash; None: all.
    """
    for number, frame, name in _frames(part):
        if isinstance(part.source, Prepared):
            entry = part.source.entry(number, frame)
            yield entry.image_sha256, name
            yield next(iter(entry.sources.values())), name
        else:
            path = _image_file(part, number, frame)
            if lengths is None or path.stat().st_size in lengths:
                with path.open("rb") as file:
                    yield hashlib.file_digest(file, "sha256").hexdigest(), name


def _lengths(part: Selected) -> set[int]:
    """Returns the sizes of all image files in bytes."""
    return {
        _image_file(part, number, frame).stat().st_size
        for number, frame, _ in _frames(part)
    }


def _frames(part: Selected) -> Iterator[tuple[int, int, str]]:
    """Yields (video index in `part.source`, frame index, description) of the frames."""
    for number, video in zip(part.numbers, part.videos, strict=True):
        for frame, name in enumerate(video.frames):
            yield number, frame, f"{video.name}, frame {name}"


def _image_file(part: Selected, video: int, frame: int) -> Path:
    source = part.source
    if not isinstance(source, RawSource):
        raise TypeError(f"{type(source).__name__}: neither prepared nor raw data")
    return source.files(video, frame)[0]
