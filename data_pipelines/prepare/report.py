"""Describes prepared data: frames by class and division, and unusual contents."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_pipelines.prepared import FrameEntry, Manifest
from data_pipelines.sources import DATASETS

# Maximum number of listed files with unknown label values.
_MAX_LISTED = 10
# Maximum Hamming distance, of 256 bits, between difference hashes of similar images.
_MAX_DISTANCE = 12


def describe(manifest: Manifest) -> list[str]:
    """Returns lines that describe the data and what is unusual about them."""
    return [
        *presence_table(manifest),
        *_unknown_values(manifest),
        *_differences(manifest),
        *_similar_frames(manifest),
    ]


def presence_table(manifest: Manifest) -> list[str]:
    """Counts the frames in which each class occurs, by part of each division.

    Data without a published division have one column. Lines below the table name
    classes that occur only in the validation part of a division, which a network cannot
    learn.
    """
    parts = _parts(manifest)
    names = [info.name for info in manifest.classes]
    columns, previous = [], ""
    for part, entries in parts.items():
        division, _, side = part.rpartition(" ")
        heading = "" if division == previous else division
        counts = [len(entries), *_frames_by_class(entries, manifest)]
        columns.append([heading, side, *map(str, counts)])
        previous = division
    rows = list(zip(["", "frames with", "any", *names], *columns, strict=True))
    first = max(len(row[0]) for row in rows)
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            [row[0].ljust(first)]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True)]
        ).rstrip()
        for row in rows
        if any(row)
    ]
    return [*lines, *_untrained_classes(manifest, parts)]


def _untrained_classes(
    manifest: Manifest, parts: dict[str, list[FrameEntry]]
) -> Iterator[str]:
    """Yields a line for each division with classes only in its validation part."""
    for part, entries in parts.items():
        division = part.removesuffix(" val")
        if division == part or f"{division} train" not in parts:
            continue
        train = _frames_by_class(parts[f"{division} train"], manifest)
        val = _frames_by_class(entries, manifest)
        names = [
            info.name
            for info, in_val, in_train in zip(manifest.classes, val, train, strict=True)
            if in_val and not in_train
        ]
        if names:
            yield f"{division}: no training frame has {', '.join(names)}"


def _parts(manifest: Manifest) -> dict[str, list[FrameEntry]]:
    """Returns frames by part, such as "fold 0 val", without empty parts."""
    videos = list(dict.fromkeys(entry.video for entry in manifest.frames))
    parts: dict[str, list[FrameEntry]] = {}
    if manifest.request.get("subset", "train") == "train":
        dataset = DATASETS.get(str(manifest.request.get("dataset")))
        divisions = {} if dataset is None else dataset.divisions(videos)
        for name, division in divisions.items():
            for part, members in (("train", division.train), ("val", division.val)):
                entries = [entry for entry in manifest.frames if entry.video in members]
                if entries:
                    parts[f"{name} {part}"] = entries
    return parts or {"all": list(manifest.frames)}


def _frames_by_class(entries: Iterable[FrameEntry], manifest: Manifest) -> list[int]:
    counts = [0] * len(manifest.classes)
    for entry in entries:
        for index, pixels in enumerate(entry.histogram):
            counts[index] += pixels > 0
    return counts


def _unknown_values(manifest: Manifest) -> Iterator[str]:
    """Yields lines about label values that belong to no class."""
    files = {
        path: values for entry in manifest.frames for path, values in entry.odd.items()
    }
    for path, values in list(files.items())[:_MAX_LISTED]:
        counts = ", ".join(f"{value} ({count})" for value, count in values.items())
        yield f"{path}: label pixels of no class, by value: {counts}"
    if len(files) > _MAX_LISTED:
        pixels = sum(count for values in files.values() for count in values.values())
        yield f"{len(files)} such files, {pixels} pixels; all are in the manifest"


def _differences(manifest: Manifest) -> Iterator[str]:
    """Yields lines about differences from the data as distributed."""
    dataset = DATASETS.get(str(manifest.request.get("dataset")))
    if dataset is None:
        return
    original = dataset.frames.get(str(manifest.request.get("subset", "train")), {})
    counts = {name: 0 for name in original}
    for entry in manifest.frames:
        counts[entry.video] = counts.get(entry.video, 0) + 1
    different: dict[tuple[int, int], list[str]] = {}
    for name, count in counts.items():
        if original and count != original.get(name, 0):
            different.setdefault((count, original.get(name, 0)), []).append(name)
    for (count, expected), names in different.items():
        yield f"{count} frames, {expected} as distributed: {', '.join(names)}"
    files = (path for entry in manifest.frames for path in entry.sources)
    yield from dataset.remarks(counts.keys(), files)


def _similar_frames(manifest: Manifest) -> Iterator[str]:
    """Yields a line about similar frames in two videos, which a split may separate."""
    bits = _bits([entry.look for entry in manifest.frames])
    number = {name: i for i, name in enumerate({e.video: 0 for e in manifest.frames})}
    video = np.array([number[entry.video] for entry in manifest.frames])
    # The hashes of images without structure are all similar.
    blank = bits.sum(axis=1) < _MAX_DISTANCE
    pairs, example = 0, ""
    for index in np.flatnonzero(~blank):
        distance = np.count_nonzero(bits[index] != bits[:index], axis=1)
        similar = (
            (distance <= _MAX_DISTANCE)
            & (video[:index] != video[index])
            & ~blank[:index]
        )
        pairs += int(similar.sum())
        if similar.any() and not example:
            first = manifest.frames[int(similar.argmax())]
            second = manifest.frames[index]
            example = f"{first.video} {first.frame} and {second.video} {second.frame}"
    if pairs:
        yield (
            f"{pairs} pairs of frames of different videos look nearly the same, such "
            f"as {example}; check them before you train and validate on them"
        )


def _bits(hashes: Sequence[str]) -> np.ndarray:
    """Unpacks hexadecimal hashes to bool `[frames, 256]`."""
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8)
    return np.unpackbits(packed.reshape(len(hashes), -1), axis=1).astype(bool)
