"""`manifest.json`: what prepared data were made from and what they must decode to.

Its hashes find damage, not malice: whoever can write the folder can seal it anew. So
what is read here is checked as a stranger's, see `checking`.
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
    """One frame. Hashes are SHA-256 in hexadecimal, sizes (height, width).

    Attributes:
        video: name of its video.
        frame: name of the frame.
        index: its place in the video, from 0.
        sources: hash of each source file, by path relative to the raw folder, the
            picture's first.
        image_size: of the stored image.
        image_sha256: `array_sha256` of the stored image, decoded.
        label_size: of the stored label; None if the frame has none.
        label_sha256: `array_sha256` of the label; None if the frame has none.
        histogram: the label's pixels by class; empty if the frame has none.
        ignored: the label's pixels that are not scored.
        odd: for each label file that has any, its pixels by value or colour that is no
            class's; what became of them is the dataset's rule.
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
    """Prepared data as a whole.

    Attributes:
        request: what was asked for (dataset, task, size, ...); plain JSON values.
        classes: background first.
        resize: how images and labels were brought to their stored sizes.
        records: the folder of the records, relative to the manifest.
        versions: of the software that wrote the records.
        frames: one entry a record, in the records' order; a video's are together.
    """

    request: Mapping[str, Any]
    classes: tuple[ClassInfo, ...]
    resize: str
    records: str
    versions: Mapping[str, str]
    frames: tuple[FrameEntry, ...]


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Writes `folder/manifest.json`, sealed with a hash of its own content."""
    content = json.loads(json.dumps({"version": _VERSION, **asdict(manifest)}))
    sealed = {"sha256": _seal(content), **content}
    text = json.dumps(sealed, indent=1) + "\n"
    write_text(Path(folder) / MANIFEST, text)


def read_manifest(folder: str | Path) -> Manifest:
    """Reads `folder/manifest.json`.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged, was edited, or is of another version.
    """
    file = Path(folder) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; prepared data are made by "
            "python -m data_pipelines.prepare"
        )
    try:
        content = json.loads(file.read_bytes())
        seal = content.pop("sha256")
        intact = seal == _seal(content)
    except checking.UNREADABLE as error:
        raise _damaged(file, error) from None
    if not intact:
        raise DataError([f"{file}: damaged or edited; prepare the data again"])
    if content.pop("version", None) != _VERSION:
        raise DataError([f"{file}: of another version; prepare the data again"])
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
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    what = printable(" ".join(what.split())) or type(error).__name__
    return DataError([f"{file}: damaged ({what}); prepare the data again"])


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


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
