"""What prepared data hold, in words: classes by division, odd pixels, lookalikes."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data_pipelines.prepared import FrameEntry, Manifest
from data_pipelines.sources import DATASETS

# Odd files that are listed; the manifest has them all.
_SHOWN = 10
# Bits of 256 that two difference hashes of one scene differ in at most.
_NEAR = 12


def describe(manifest: Manifest) -> list[str]:
    """Lines that tell what the data hold and what is unusual about them."""
    return [
        *presence_table(manifest),
        *_odd_pixels(manifest),
        *_unlike_the_original(manifest),
        *_lookalikes(manifest),
    ]


def presence_table(manifest: Manifest) -> list[str]:
    """In how many frames each class occurs, by part of each published division.

    Data without a published division get one column. What a network has to find but
    cannot learn, a class that occurs in a division's validation part alone, is told
    below the table.
    """
    parts = _parts(manifest)
    columns, shown = [], ""
    for part, entries in parts.items():
        division, _, side = part.rpartition(" ")
        heading = "" if division == shown else division
        counts = [len(entries), *_frames_by_class(entries, manifest)]
        columns.append([heading, side, *map(str, counts)])
        shown = division
    names = [info.name for info in manifest.classes]
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
    for part, entries in parts.items():
        division = part.removesuffix(" val")
        if division == part or f"{division} train" not in parts:
            continue
        learned = _frames_by_class(parts[f"{division} train"], manifest)
        asked = _frames_by_class(entries, manifest)
        unknown = [
            name
            for name, here, there in zip(names, asked, learned, strict=True)
            if here and not there
        ]
        if unknown:
            lines.append(f"{division}: no training frame has {', '.join(unknown)}")
    return lines


def _parts(manifest: Manifest) -> dict[str, list[FrameEntry]]:
    """Frames by part, such as "fold 0 val"; parts without any are left out."""
    videos = list(dict.fromkeys(entry.video for entry in manifest.frames))
    parts: dict[str, list[FrameEntry]] = {}
    if manifest.request.get("subset", "train") == "train":
        dataset = DATASETS.get(str(manifest.request.get("dataset")))
        divisions = {} if dataset is None else dataset.divisions(videos)
        for name, division in divisions.items():
            for part, wanted in (("train", division.train), ("val", division.val)):
                chosen = [entry for entry in manifest.frames if entry.video in wanted]
                if chosen:
                    parts[f"{name} {part}"] = chosen
    return parts or {"all": list(manifest.frames)}


def _frames_by_class(entries: Iterable[FrameEntry], manifest: Manifest) -> list[int]:
    counts = [0] * len(manifest.classes)
    for entry in entries:
        for index, pixels in enumerate(entry.histogram):
            counts[index] += pixels > 0
    return counts


def _odd_pixels(manifest: Manifest) -> Iterator[str]:
    odd = {
        path: values for entry in manifest.frames for path, values in entry.odd.items()
    }
    for path, values in list(odd.items())[:_SHOWN]:
        found = ", ".join(f"{value} ({count})" for value, count in values.items())
        yield f"{path}: label pixels of no class, by value: {found}"
    if len(odd) > _SHOWN:
        pixels = sum(count for values in odd.values() for count in values.values())
        yield f"{len(odd)} such files, {pixels} pixels; all are in the manifest"


def _unlike_the_original(manifest: Manifest) -> Iterator[str]:
    dataset = DATASETS.get(str(manifest.request.get("dataset")))
    if dataset is None:
        return
    wanted = dataset.frames.get(str(manifest.request.get("subset", "train")), {})
    there = {name: 0 for name in wanted}
    for entry in manifest.frames:
        there[entry.video] = there.get(entry.video, 0) + 1
    unlike: dict[tuple[int, int], list[str]] = {}
    for name, count in there.items():
        if wanted and count != wanted.get(name, 0):
            unlike.setdefault((count, wanted.get(name, 0)), []).append(name)
    for (count, original), names in unlike.items():
        yield f"{count} frames, {original} as distributed: {', '.join(names)}"
    files = (path for entry in manifest.frames for path in entry.sources)
    yield from dataset.remarks(there.keys(), files)


def _lookalikes(manifest: Manifest) -> Iterator[str]:
    """Frames of two videos that look alike, which a split may put on both sides."""
    bits = _bits([entry.look for entry in manifest.frames])
    number = {name: i for i, name in enumerate({e.video: 0 for e in manifest.frames})}
    video = np.array([number[entry.video] for entry in manifest.frames])
    # A picture without any structure looks like any other one.
    plain = bits.sum(axis=1) < _NEAR
    pairs, example = 0, ""
    for index in np.flatnonzero(~plain):
        distance = np.count_nonzero(bits[index] != bits[:index], axis=1)
        near = (distance <= _NEAR) & (video[:index] != video[index]) & ~plain[:index]
        pairs += int(near.sum())
        if near.any() and not example:
            example = (
                f"{_place(manifest.frames[int(near.argmax())])} and "
                f"{_place(manifest.frames[index])}"
            )
    if pairs:
        yield (
            f"{pairs} pairs of frames of different videos look nearly the same, such "
            f"as {example}; look at them before they train and validate"
        )


def _bits(looks: Sequence[str]) -> np.ndarray:
    """bool `[frames, 256]`."""
    packed = np.frombuffer(bytes.fromhex("".join(looks)), np.uint8)
    return np.unpackbits(packed.reshape(len(looks), -1), axis=1).astype(bool)


def _place(entry: FrameEntry) -> str:
    return f"{entry.video} {entry.frame}"
