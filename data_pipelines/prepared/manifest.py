"""`manifest.json`: the origin of prepared data and the hashes of their contents.

The hashes detect damage, not tampering: anyone who can write the folder can recompute
them. The contents are therefore validated as untrusted input; see `checking`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.io.files import write_text
from data_pipelines.io.names import printable
from data_pipelines.prepared import checking

MANIFEST = "manifest.json"
_VERSION = 2


@dataclass(frozen=True)
class FrameEntry:
    """A frame. Hashes are SHA-256 in hexadecimal, sizes (height, width).

    The fields are those of the file.

    Attributes:
        video: name of the video.
        frame: name of the frame.
        index: index of the frame in the video, from 0.
        sources: hashes of the source files by path relative to the raw folder; the
            image is first.
        image_size: size of the stored image.
        image_sha256: `array_sha256` of the stored image, decoded.
        label_size: size of the stored label; None without a label.
        label_sha256: `array_sha256` of the label; None without a label.
        histogram: pixels of the label by class; empty without a label.
        ignored: pixels of the label that are not scored.
        odd: pixel counts by value or color that belongs to no class, for each label
            file that has any. The dataset defines their treatment.
        look: `difference_hash` of the stored image.
    """

    video: str
    frame: str
    index: int
    sources: Mapping[str, str]
    image_size: tuple[int, int]
    image_sha256: str
    label_size: tuple[int, int] | None
    label_sha256: str | None
    histogram: tuple[int, ...]
    ignored: int
    odd: Mapping[str, Mapping[str, int]]
    look: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of a prepared folder. The fields are those of the file.

    Attributes:
        request: the fields of the `Request` (dataset, task, size, ...) as JSON values.
        classes: the classes, background first.
        resize: describes how images and labels were resized.
        records: folder of the records, relative to the manifest.
        versions: versions of the software that wrote the records.
        frames: one entry per record, in the same order; those of a video are
            contiguous.
    """

    request: Mapping[str, Any]
    classes: tuple[ClassInfo, ...]
    resize: str
    records: str
    versions: Mapping[str, str]
    frames: tuple[FrameEntry, ...]


def array_sha256(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Writes `folder/manifest.json`, with a hash of its content."""
    content = json.loads(json.dumps({"version": _VERSION, **asdict(manifest)}))
    text = json.dumps({"sha256": _digest(content), **content}, indent=1) + "\n"
    write_text(Path(folder) / MANIFEST, text)


def read_manifest(folder: str | Path) -> Manifest:
    """Reads `folder/manifest.json`.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is damaged, was edited, or has another version.
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; prepare the data with "
            "python -m data_pipelines.prepare"
        )
    try:
        content = json.loads(file.read_bytes())
        digest = content.pop("sha256")
        intact = digest == _digest(content)
    except checking.UNREADABLE as error:
        raise _damaged(file, error) from None
    if not intact:
        raise DataError([f"{file}: damaged or edited; prepare the data again"])
    if content.pop("version", None) != _VERSION:
        raise DataError([f"{file}: has another version; prepare the data again"])
    try:
        checking.check_manifest(content)
        classes = tuple(
            ClassInfo(info["name"], tuple(info["color"]))
            for info in content.pop("classes")
        )
        frames = tuple(_entry(fields) for fields in content.pop("frames"))
        return Manifest(classes=classes, frames=frames, **content)
    except checking.UNREADABLE as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> DataError:
    message = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    message = printable(" ".join(message.split())) or type(error).__name__
    return DataError([f"{file}: damaged ({message}); prepare the data again"])


def _entry(fields: dict[str, Any]) -> FrameEntry:
    size = fields["label_size"]
    return FrameEntry(
        **{
            **fields,
            "image_size": tuple(fields["image_size"]),
            "label_size": None if size is None else tuple(size),
            "histogram": tuple(fields["histogram"]),
        }
    )


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
