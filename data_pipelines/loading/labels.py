"""Checks the labels of all frames before training.

A run on masks without foreground would end with a loss of 0 and, under protocols that
reward empty predictions on empty frames, a perfect score. Labels that cannot be learned
or scored are therefore errors, which are all reported at once.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from data_pipelines.frames import IGNORE, DataError, FrameSource


@dataclass(frozen=True)
class LabelCounts:
    """Pixel counts of the masks of a video.

    Attributes:
        video: name of the video.
        masks: number of masks that could be read.
        pixels: int64 `[C]`, pixels of each class in all masks.
        only_ignored: number of masks whose only foreground value is `IGNORE`.
    """

    video: str
    masks: int
    pixels: np.ndarray
    only_ignored: int


def count_labels(
    source: FrameSource, faults: list[str], *, threads: int = 1
) -> tuple[LabelCounts, ...]:
    """Reads every image and mask of `source` and counts the pixels of each class.

    Args:
        source: the frames. A `Cached` source keeps the images for later use.
        faults: error messages are added to it, in the order of the frames.
        threads: number of frames read at a time.

    Returns:
        The counts of each video.
    """

    def count(index: tuple[int, int]) -> np.ndarray | list[str] | None:
        label, errors = None, []
        for read in (source.image, source.label):
            try:
                label = read(*index)
            except DataError as error:
                errors += error.faults
            except OSError as error:
                errors.append(str(error))
        if errors:
            return errors
        return None if label is None else np.bincount(label.ravel(), minlength=256)

    result = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for number, video in enumerate(source.videos):
            indices = ((number, frame) for frame in range(len(video.frames)))
            counts = []
            for item in pool.map(count, indices):
                if isinstance(item, list):
                    faults += item
                elif item is not None:
                    counts.append(item)
            table = np.array(counts, np.int64).reshape(-1, 256)
            only_ignored = ~table[:, 1:IGNORE].any(axis=1) & (table[:, IGNORE] > 0)
            result.append(
                LabelCounts(
                    video=video.name,
                    masks=len(table),
                    pixels=table[:, : len(source.classes)].sum(axis=0),
                    only_ignored=int(only_ignored.sum()),
                )
            )
    return tuple(result)


def check_labels(
    train: FrameSource | None,
    val: FrameSource,
    *,
    every_class: bool,
    threads: int = 1,
) -> list[str]:
    """Checks that all frames can be read and that the masks have foreground.

    Args:
        train: the training videos; None without training.
        val: the validation videos.
        every_class: whether a class without training pixels is an error.
        threads: number of masks read at a time.

    Returns:
        Warnings, one per line.

    Raises:
        DataError: has a line for every error.
    """
    faults: list[str] = []
    notes: list[str] = []
    if train is not None:
        counts = count_labels(train, faults, threads=threads)
        notes += [
            f"{video.only_ignored} of the {video.masks} masks of {video.video} have no "
            f"foreground but {IGNORE}, which is not scored"
            for video in counts
            if video.only_ignored and video.pixels[1:].any()
        ]
        faults += _foreground_faults("training", counts)
        pixels = sum((video.pixels for video in counts), np.zeros(1, np.int64))
        absent = [
            f"{index} ({info.name})"
            for index, info in enumerate(train.classes)
            if index and not pixels[index : index + 1].any()
        ]
        if absent and any(video.masks for video in counts):
            text = f"no training mask has a pixel of class {', '.join(absent)}"
            if every_class:
                faults.append(
                    f"{text}: train on a video that shows it, remove it from "
                    "classes.json and data.num_classes, or accept that it is never "
                    "predicted with --data.absent-classes accept"
                )
            elif pixels[1:].any():
                notes.append(f"{text}; it will never be predicted")
    counts = count_labels(val, faults, threads=threads)
    faults += _foreground_faults("validation", counts)
    if faults:
        raise DataError(dict.fromkeys(faults))
    return notes


def _foreground_faults(part: str, counts: Sequence[LabelCounts]) -> list[str]:
    """Reports videos without foreground that is scored."""
    faults = [
        f"{part} video {video.video}: the only foreground value of its masks is "
        f"{IGNORE}, which is not scored ({video.only_ignored} of {video.masks} masks): "
        f"if they are binary masks, 0 and {IGNORE}, read them with "
        "--data.mask-values binary"
        for video in counts
        if video.only_ignored and not video.pixels[1:].any()
    ]
    if faults or any(video.pixels[1:].any() for video in counts):
        return faults
    names = ", ".join(video.video for video in counts)
    masks = sum(video.masks for video in counts)
    problem = f"none of the {masks} masks has a foreground pixel"
    return [
        f"{part} videos {names}: {problem if masks else 'no mask could be read'}; "
        "use videos whose masks have foreground"
    ]
