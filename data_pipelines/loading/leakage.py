"""Refuses training data that hold a frame of the validation data.

By the videos' names and by the frames' content. Content is compared by hashes: those
of prepared data stand in their manifest, of the decoded pictures and of the files they
came from; of raw data the picture files are hashed, where a file of the same length is
in the other part. So a raw frame that was stored anew in another way is found in
prepared data only.
"""

import hashlib
from collections.abc import Container, Iterator
from pathlib import Path

from data_pipelines.frames import DataError, RawSource, Selected
from data_pipelines.prepared import Prepared

# Faults that are listed; a video that is twice there has hundreds.
_SHOWN = 5


def check_disjoint(train: Selected, val: Selected) -> None:
    """Holds the training against the validation videos.

    Args:
        train: videos selected from prepared or raw data.
        val: the same, from these data or others.

    Raises:
        DataError: names the videos, or the first few frames, that are in both.
    """
    names = {video.name for video in train.videos}
    twice = [video.name for video in val.videos if video.name in names]
    if twice:
        raise DataError(
            [
                f"{', '.join(twice)}: among the training and the validation videos; "
                "take them out of one of the two"
            ]
        )
    lengths: Container[int] | None = None
    if not isinstance(train.source, Prepared) and not isinstance(val.source, Prepared):
        lengths = _lengths(train) & _lengths(val)
    known = dict(_fingerprints(train, lengths))
    found: dict[str, str] = {}
    for fingerprint, place in _fingerprints(val, lengths):
        if fingerprint in known:
            found.setdefault(place, known[fingerprint])
    if found:
        faults = [
            f"validation {place} is the same picture as training {other}"
            for place, other in list(found.items())[:_SHOWN]
        ]
        faults[-1] += (
            f" ({len(found)} such frames); training and validation must not share "
            "frames: remove one of the videos"
        )
        raise DataError(faults)


def _fingerprints(
    part: Selected, lengths: Container[int] | None
) -> Iterator[tuple[str, str]]:
    """Hashes of the frames, each with the frame's place in words.

    Args:
        part: selected videos.
        lengths: bytes of the picture files that need hashing; None: all.
    """
    for number, frame, place in _frames(part):
        if isinstance(part.source, Prepared):
            entry = part.source.entry(number, frame)
            yield entry.image_sha256, place
            yield next(iter(entry.sources.values())), place
        else:
            path = _picture(part, number, frame)
            if lengths is None or path.stat().st_size in lengths:
                with path.open("rb") as file:
                    yield hashlib.file_digest(file, "sha256").hexdigest(), place


def _lengths(part: Selected) -> set[int]:
    return {
        _picture(part, number, frame).stat().st_size
        for number, frame, _ in _frames(part)
    }


def _frames(part: Selected) -> Iterator[tuple[int, int, str]]:
    """Numbers in `part.source` of the frames, each with its place in words."""
    for number, video in zip(part.numbers, part.videos, strict=True):
        for frame, name in enumerate(video.frames):
            yield number, frame, f"{video.name}, frame {name}"


def _picture(part: Selected, video: int, frame: int) -> Path:
    source = part.source
    if not isinstance(source, RawSource):
        raise TypeError(f"{type(source).__name__}: neither prepared nor raw data")
    return source.files(video, frame)[0]
