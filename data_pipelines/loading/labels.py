"""What the frames of a run hold, all of them looked at before anything is trained.

A run whose masks teach nothing ends like any other: a loss of 0 and, by protocols that
reward an empty frame, a perfect score. So what cannot be learned or scored is a fault,
and all faults come in one report.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from data_pipelines.frames import IGNORE, DataError, FrameSource


@dataclass(frozen=True)
class LabelCounts:
    """The masks of one video.

    Attributes:
        video: its name.
        masks: how many could be read.
        pixels: int64 `[C]`, pixels of each class over all of them.
        only_ignored: masks whose only foreground is `IGNORE`.
    """

    video: str
    masks: int
    pixels: np.ndarray
    only_ignored: int


def count_labels(
    source: FrameSource, faults: list[str], *, threads: int = 1
) -> tuple[LabelCounts, ...]:
    """Reads every picture and mask of `source` once.

    Args:
        source: its labels as they are stored. A `Cached` one keeps the pictures, so
            reading them here costs a run nothing.
        faults: what is wrong with files is appended here, in the frames' order.
        threads: frames read at a time.
    """
    classes = len(source.classes)

    def one(place: tuple[int, int]) -> np.ndarray | list[str] | None:
        label, wrong = None, []
        for read in (source.image, source.label):
            try:
                label = read(*place)
            except DataError as error:
                wrong += error.faults
            except OSError as error:
                wrong.append(str(error))
        if wrong:
            return wrong
        return None if label is None else np.bincount(label.ravel(), minlength=256)

    found = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for number, video in enumerate(source.videos):
            places = ((number, frame) for frame in range(len(video.frames)))
            counts = []
            for result in pool.map(one, places):
                if isinstance(result, list):
                    faults += result
                elif result is not None:
                    counts.append(result)
            table = np.array(counts, np.int64).reshape(-1, 256)
            blank = ~table[:, 1:IGNORE].any(axis=1) & (table[:, IGNORE] > 0)
            pixels = table[:, :classes].sum(axis=0)
            found.append(LabelCounts(video.name, len(table), pixels, int(blank.sum())))
    return tuple(found)


def check_labels(
    train: FrameSource | None,
    val: FrameSource,
    *,
    every_class: bool,
    threads: int = 1,
) -> list[str]:
    """Refuses frames that cannot be read, and masks that teach or score nothing.

    Args:
        train: the training videos; None if nothing is trained.
        val: the videos that are scored.
        every_class: whether a class without a pixel in training is a fault.
        threads: masks read at a time.

    Returns:
        Lines that tell what is unusual and no fault.

    Raises:
        DataError: a line for every fault, of all masks.
    """
    faults: list[str] = []
    notes: list[str] = []
    if train is not None:
        found = count_labels(train, faults, threads=threads)
        notes += [
            f"{video.only_ignored} of the {video.masks} masks of {video.video} have no "
            f"foreground but {IGNORE}, which is not scored"
            for video in found
            if video.only_ignored and video.pixels[1:].any()
        ]
        faults += _empty("training", found)
        pixels = sum((video.pixels for video in found), np.zeros(1, np.int64))
        absent = [
            f"{index} ({info.name})"
            for index, info in enumerate(train.classes)
            if index and not pixels[index : index + 1].any()
        ]
        if absent and any(video.masks for video in found):
            text = f"no training mask has a pixel of class {', '.join(absent)}"
            if every_class:
                faults.append(
                    f"{text}: train on a video that shows it, take it out of "
                    "classes.json and data.num_classes, or accept that it is never "
                    "predicted with --data.absent-classes accept"
                )
            elif pixels[1:].any():
                notes.append(f"{text}; it will never be predicted")
    faults += _empty("validation", count_labels(val, faults, threads=threads))
    if faults:
        raise DataError(dict.fromkeys(faults))
    return notes


def _empty(part: str, found: Sequence[LabelCounts]) -> list[str]:
    """Videos, or all of them, whose masks have no foreground."""
    faults = [
        f"{part} video {video.video}: the only foreground value of its masks is "
        f"{IGNORE}, which is not scored ({video.only_ignored} of {video.masks} masks): "
        f"if they are binary masks, 0 and {IGNORE}, read them with "
        "--data.mask-values binary"
        for video in found
        if video.only_ignored and not video.pixels[1:].any()
    ]
    if faults or any(video.pixels[1:].any() for video in found):
        return faults
    names = ", ".join(video.video for video in found)
    masks = sum(video.masks for video in found)
    what = f"none of the {masks} masks has a pixel of a class but background"
    return [
        f"{part} videos {names}: {what if masks else 'no mask could be read'}; "
        "give videos with masks of what is to be found"
    ]
