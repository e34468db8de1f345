"""Prepared data as a source of frames, and their verification."""

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
    """A `FrameSource` of prepared data. Made by `open_prepared`."""

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
        self._lock = threading.Lock()

    def entry(self, video: int, frame: int) -> FrameEntry:
        """Returns the manifest's entry of a frame."""
        return self.manifest.frames[self._index(video, frame)]

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image, uint8 `[H, W, 3]`, at the prepared size.

        Raises:
            DataError: the record is damaged or does not match the manifest.
        """
        entry = self.entry(video, frame)
        array = self._read(video, frame, "image", "RGB")
        if array.shape[:2] != entry.image_size:
            raise self._damaged(entry, f"image of {array.shape[:2]}")
        return array

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """Returns the classes, uint8 `[h, w]`, at stored size; None without a mask.

        Raises:
            DataError: the record is damaged or does not match the manifest.
        """
        entry = self.entry(video, frame)
        if entry.label_size is None:
            return None
        array = self._read(video, frame, "label", "L")
        if array.shape != entry.label_size:
            raise self._damaged(entry, f"label of {array.shape}")
        invalid = array[(array >= len(self.classes)) & (array != IGNORE)]
        if invalid.size:
            raise self._damaged(entry, f"label of class {invalid[0]}")
        return array

    def _index(self, video: int, frame: int) -> int:
        return int(self._first[video]) + range(len(self.videos[video].frames))[frame]

    def _read(self, video: int, frame: int, field: str, mode: str) -> np.ndarray:
        entry = self.entry(video, frame)
        try:
            # The record readers may not be thread-safe. Decoding, which is slow, is
            # outside the lock.
            with self._lock:
                record = self._records[self._index(video, frame)]
            name = record["video"].decode(), record["frame"].decode(), record["index"]
            array = decode(bytes(record[field]), field, mode)
        except Exception as error:
            # For damaged data, the record library may raise any exception.
            raise self._damaged(entry, str(error)) from error
        if name != (entry.video, entry.frame, entry.index):
            raise self._damaged(entry, f"record of {name[0]}, frame {name[1]}")
        return array

    def _damaged(self, entry: FrameEntry, reason: str) -> DataError:
        reason = printable(" ".join(reason.split()))
        return DataError(
            [
                f"{self._folder}: video {entry.video}, frame {entry.frame}: damaged "
                f"({reason}); prepare the data again"
            ]
        )


def open_prepared(folder: str | Path) -> Prepared:
    """Opens a folder written by `python -m data_pipelines.prepare`.

    The hash of the manifest and the number of records are checked here; each record is
    checked when it is read (`verify` checks them all).

    Raises:
        FileNotFoundError: the folder has no manifest.
        DataError: the manifest is damaged, or records are missing or unreadable.
    """
    from data_pipelines.prepared.store import open_records

    folder = Path(folder)
    manifest = read_manifest(folder)
    record_folder = folder / manifest.records
    try:
        records = open_records(record_folder)
        count = len(records)
    except Exception as error:
        reason = printable(" ".join(str(error).split()))
        raise DataError(
            [
                f"{record_folder}: records cannot be read ({reason}); prepare the data "
                "again"
            ]
        ) from error
    if count != len(manifest.frames):
        raise DataError(
            [
                f"{record_folder}: {count} records, the manifest has "
                f"{len(manifest.frames)} frames; prepare the data again"
            ]
        )
    return Prepared(folder, manifest, records)


def verify(
    folder: str | Path, log: Callable[[str], None] | None = None
) -> tuple[int, int]:
    """Decodes every image and label and compares them with the manifest.

    Args:
        folder: a folder written by `python -m data_pipelines.prepare`.
        log: called with one line per video.

    Returns:
        The numbers of (videos, frames).

    Raises:
        FileNotFoundError: the folder has no manifest.
        DataError: the folder cannot be opened, or frames are damaged; has the errors of
            all frames.
    """
    source = open_prepared(folder)
    faults: list[str] = []
    for number, video in enumerate(source.videos):
        for frame in range(len(video.frames)):
            entry = source.entry(number, frame)
            for field, read, digest in (
                ("image", source.image, entry.image_sha256),
                ("label", source.label, entry.label_sha256),
            ):
                try:
                    array = read(number, frame)
                except DataError as error:
                    faults += error.faults
                    continue
                if array is not None and array_sha256(array) != digest:
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
