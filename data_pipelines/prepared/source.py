"""Prepared data as a source of frames, and the check that they are undamaged."""

import threading
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.frames import IGNORE, DataError, Video
from data_pipelines.io.images import decode
from data_pipelines.io.names import printable
from data_pipelines.prepared.manifest import (
    FrameEntry,
    Manifest,
    array_sha256,
    read_manifest,
)

if TYPE_CHECKING:
    from data_pipelines.prepared.store import Records


class Prepared:
    """Prepared data; a `FrameSource`. Made by `open_prepared`."""

    def __init__(self, folder: Path, manifest: Manifest, records: "Records"):
        self.manifest = manifest
        self.classes = manifest.classes
        groups = [
            (name, list(entries))
            for name, entries in groupby(manifest.frames, lambda entry: entry.video)
        ]
        self.videos = tuple(_video(name, entries) for name, entries in groups)
        self._first = np.cumsum([0, *(len(entries) for _, entries in groups)])
        self._folder = folder
        self._records = records
        self._reading = threading.Lock()

    def entry(self, video: int, frame: int) -> FrameEntry:
        """The manifest's entry of a frame."""
        return self.manifest.frames[self._index(video, frame)]

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]` at the prepared size.

        Raises:
            DataError: the record is damaged or is not the one of the manifest.
        """
        entry = self.entry(video, frame)
        array = self._decoded(video, frame, "image", "RGB")
        if array.shape[:2] != entry.image_size:
            raise self._damaged(entry, f"image of {array.shape[:2]}")
        return array

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """The classes, uint8 `[h, w]` at the stored size; None if there is no mask.

        Raises:
            DataError: the record is damaged or is not the one of the manifest.
        """
        entry = self.entry(video, frame)
        if entry.label_size is None:
            return None
        array = self._decoded(video, frame, "label", "L")
        if array.shape != entry.label_size:
            raise self._damaged(entry, f"label of {array.shape}")
        wrong = array[(array >= len(self.classes)) & (array != IGNORE)]
        if wrong.size:
            raise self._damaged(entry, f"label of class {wrong[0]}")
        return array

    def _index(self, video: int, frame: int) -> int:
        return int(self._first[video]) + range(len(self.videos[video].frames))[frame]

    def _decoded(self, video: int, frame: int, field: str, mode: str) -> np.ndarray:
        entry = self.entry(video, frame)
        try:
            # The record readers promise nothing about threads; decoding, the slow
            # part, is outside the lock.
            with self._reading:
                record = self._records[self._index(video, frame)]
            found = record["video"].decode(), record["frame"].decode(), record["index"]
            array = decode(bytes(record[field]), field, mode)
        except Exception as error:
            # Damage shows as whatever the record library and the decoder raise.
            raise self._damaged(entry, str(error)) from error
        if found != (entry.video, entry.frame, entry.index):
            raise self._damaged(entry, f"record of {found[0]}, frame {found[1]}")
        return array

    def _damaged(self, entry: FrameEntry, found: str) -> DataError:
        return DataError(
            [
                f"{self._folder}: video {entry.video}, frame {entry.frame}: damaged "
                f"({printable(' '.join(found.split()))}); prepare the data again"
            ]
        )


def open_prepared(folder: str | Path) -> Prepared:
    """Opens what `python -m data_pipelines.prepare` wrote.

    The manifest is checked against its own hash and the number of records; records
    are checked against it as they are read (`verify` checks them all).

    Raises:
        FileNotFoundError: there is no manifest in `folder`.
        DataError: the manifest is damaged, or the records are missing or others.
    """
    from data_pipelines.prepared.store import open_records

    folder = Path(folder)
    manifest = read_manifest(folder)
    place = folder / manifest.records
    try:
        records = open_records(place)
        count = len(records)
    except Exception as error:
        line = printable(" ".join(str(error).split()))
        raise DataError(
            [f"{place}: records cannot be read ({line}); prepare the data again"]
        ) from error
    if count != len(manifest.frames):
        raise DataError(
            [
                f"{place}: {count} records, the manifest has {len(manifest.frames)} "
                "frames; prepare the data again"
            ]
        )
    return Prepared(folder, manifest, records)


def verify(
    folder: str | Path, log: Callable[[str], None] | None = None
) -> tuple[int, int]:
    """Decodes every image and label and compares them with the manifest.

    Args:
        folder: what `python -m data_pipelines.prepare` wrote.
        log: called with one line a video.

    Returns:
        (videos, frames) checked.

    Raises:
        FileNotFoundError, DataError: as `open_prepared`; with the faults of all frames.
    """
    source = open_prepared(folder)
    faults: list[str] = []
    for number, video in enumerate(source.videos):
        for frame in range(len(video.frames)):
            entry = source.entry(number, frame)
            for field, read, wanted in (
                ("image", source.image, entry.image_sha256),
                ("label", source.label, entry.label_sha256),
            ):
                try:
                    array = read(number, frame)
                except DataError as error:
                    faults += error.faults
                    continue
                if array is not None and array_sha256(array) != wanted:
                    faults.append(
                        f"{folder}: video {entry.video}, frame {entry.frame}: {field} "
                        "decodes to other values; prepare the data again"
                    )
        if log:
            log(f"{video.name}: {len(video.frames)} frames checked")
    if faults:
        raise DataError(faults)
    return len(source.videos), len(source.manifest.frames)


def _video(name: str, entries: list[FrameEntry]) -> Video:
    unlabeled = [entry.index for entry in entries if entry.label_size is None]
    return Video(name, tuple(entry.frame for entry in entries), frozenset(unlabeled))
