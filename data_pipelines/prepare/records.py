"""Makes records and entries of the manifest from the frames of a raw dataset."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.frames import IGNORE, DataError, RawSource, resize_image
from data_pipelines.io.images import difference_hash
from data_pipelines.prepared import FrameEntry, array_sha256
from data_pipelines.sources import Request

_JPEG_QUALITY = 95
# Maximum number of frames processed at a time, which bounds the memory.
_BATCH = 32


def frame_records(
    source: RawSource,
    root: Path,
    request: Request,
    threads: int,
    entries: list[FrameEntry],
    faults: list[str],
    log: Callable[[str], None],
    count: Callable[[], None],
) -> Iterator[dict[str, Any]]:
    """Yields the records in order.

    Args:
        source: opened from `root`.
        root: the raw folder.
        request: size and encoding of the images.
        threads: number of frames processed at a time.
        entries: entries of the manifest are added to it.
        faults: error messages are added to it. After the first error, no record is
            yielded, but all frames are checked.
        log: called with one line per video.
        count: called after each frame.

    Raises:
        DataError: after the last frame, if there were errors.
    """

    def make(index: tuple[int, int]) -> tuple[dict[str, Any], FrameEntry] | list[str]:
        try:
            return _make_record(source, root, request, *index)
        except DataError as error:
            return list(error.faults)
        except OSError as error:
            return [str(error)]

    with ThreadPoolExecutor(threads) as pool:
        for number, video in enumerate(source.videos):
            indices = [(number, frame) for frame in range(len(video.frames))]
            for start in range(0, len(indices), _BATCH):
                for result in pool.map(make, indices[start : start + _BATCH]):
                    if isinstance(result, list):
                        faults += result
                    elif not faults:
                        record, entry = result
                        entries.append(entry)
                        yield record
                    count()
            log(f"{video.name}: {len(video.frames)} frames")
    if faults:
        raise DataError(faults)


def blank_faults(entries: Sequence[FrameEntry]) -> list[str]:
    """Reports masks without foreground that is scored."""
    faults: list[str] = []
    labeled = [entry for entry in entries if entry.label_size is not None]
    if labeled and not any(any(entry.histogram[1:]) for entry in labeled):
        faults.append(f"none of the {len(labeled)} masks has a foreground pixel")
    for video, group in groupby(labeled, lambda entry: entry.video):
        masks = list(group)
        ignored = sum(entry.ignored > 0 for entry in masks)
        if ignored and not any(any(entry.histogram[1:]) for entry in masks):
            faults.append(
                f"{video}: the only foreground value of its masks is {IGNORE}, which "
                f"is not scored ({ignored} of {len(masks)} masks): if they are binary "
                f"masks, 0 and {IGNORE}, read them with --mask-values binary"
            )
    return faults


def _make_record(
    source: RawSource, root: Path, request: Request, number: int, frame: int
) -> tuple[dict[str, Any], FrameEntry]:
    """Returns the record of a frame and its entry in the manifest."""
    image, label = None, None
    faults: list[str] = []
    try:
        image = source.image(number, frame)
    except DataError as error:
        faults += error.faults
    try:
        label = source.label(number, frame)
    except DataError as error:
        faults += error.faults
    if image is None or faults:
        raise DataError(faults)
    image = image if request.size is None else resize_image(image, request.size)
    encoded, image = _encode(image, request.encoding)
    # Every record needs a label; that of an unlabeled frame is not scored.
    stored = np.full(image.shape[:2], IGNORE, np.uint8) if label is None else label
    counts = np.bincount(stored.ravel(), minlength=256)

    def name(path: Path) -> str:
        return path.relative_to(root).as_posix()

    video = source.videos[number]
    entry = FrameEntry(
        video=video.name,
        frame=video.frames[frame],
        index=frame,
        sources={
            name(path): _file_sha256(path) for path in source.files(number, frame)
        },
        image_size=(image.shape[0], image.shape[1]),
        image_sha256=array_sha256(image),
        label_size=None if label is None else (label.shape[0], label.shape[1]),
        label_sha256=None if label is None else array_sha256(label),
        histogram=()
        if label is None
        else tuple(int(count) for count in counts[: len(source.classes)]),
        ignored=int(counts[IGNORE]),
        odd={
            name(path): values
            for path, values in source.unknown_values(number, frame).items()
        },
        look=difference_hash(image),
    )
    record = {
        "image": encoded,
        "label": _encode(stored, "png")[0],
        "video": entry.video,
        "frame": entry.frame,
        "index": entry.index,
    }
    return record, entry


def _encode(array: np.ndarray, encoding: str) -> tuple[bytes, np.ndarray]:
    """Returns the encoded bytes and the array that they decode to."""
    stream = io.BytesIO()
    picture = Image.fromarray(array)
    if encoding == "png":
        picture.save(stream, "PNG", compress_level=3)
        return stream.getvalue(), array
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return stream.getvalue(), np.array(Image.open(stream))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
