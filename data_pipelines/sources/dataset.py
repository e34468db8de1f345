"""What a dataset is to the rest of the program: a description of its facts.

Each package here exports one, called `DATASET`; `data_pipelines.sources.DATASETS` lists
them. Configs, `prepare`, training and evaluation ask the description and know no
dataset by name.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data_pipelines.frames import ClassInfo, DataError, FrameSource
from data_pipelines.synthetic.config import SyntheticConfig

MaskValues = Literal["class", "binary", "colors"]
"""What a mask's values mean, see `data_pipelines.sources.folder.masks`."""

MASK_VALUES: tuple[MaskValues, ...] = get_args(MaskValues)


@dataclass(frozen=True)
class Request:
    """What is to be prepared.

    Attributes:
        dataset: one of `DATASETS`.
        task: which classes, where the dataset has several tasks; else "".
        masks: name of the mask folders, where the dataset has any of its own; else "".
        size: (height, width) that images are stored at; None keeps theirs.
        encoding: of stored images, "png" or "jpeg".
        on_unknown: what becomes of label colors of no class (EndoVis 2018): "error",
            "ignore" or "nearest".
        allow_missing: accept frames without a mask (datasets in the folder layout).
        subset: "train", or "test" for a test archive.
        mask_values: what a mask's values mean (datasets in the folder layout), see
            `data_pipelines.sources.folder.masks`.
    """

    dataset: str
    task: str = ""
    masks: str = ""
    size: tuple[int, int] | None = (512, 640)
    encoding: str = "png"
    on_unknown: str = "error"
    allow_missing: bool = False
    subset: str = "train"
    mask_values: MaskValues = "class"


@dataclass(frozen=True)
class Selection:
    """What a run needs of a dataset; the rest of the folder is not looked at.

    Attributes:
        videos: their names; None: all.
        num_classes: how many classes, where nothing in the folder says it.
        size: (height, width) to render at, where pictures are rendered on demand.
        synthetic: what to render, for rendered datasets.
    """

    videos: Sequence[str] | None = None
    num_classes: int | None = None
    size: tuple[int, int] = (512, 640)
    synthetic: SyntheticConfig = SyntheticConfig()


ALL = Selection()


@dataclass(frozen=True)
class Division:
    """A published division: names of the training and the validation videos.

    Attributes:
        train: of the dataset.
        val: of the dataset, or of its test archive.
        in_archive: whether `val` is of the test archive.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    in_archive: bool = False


def _none(videos: Sequence[str]) -> dict[str, Division]:
    return {}


def _no_remarks(videos: Collection[str], files: Iterable[str]) -> list[str]:
    return []


def _no_masks(path: Path, request: Request) -> np.ndarray:
    raise DataError([f"{path}: {request.dataset} has no mask files"])


def _in_mask_folder(path: Path, request: Request) -> bool:
    return path.parent.name == (request.masks or "masks")


@dataclass(frozen=True)
class Dataset:
    """The facts of one dataset.

    Attributes:
        name: in configs and on command lines.
        classes: by task, the default task first, background first. A dataset without
            tasks has one entry, ""; an empty tuple if the folder says the classes.
        protocol: of `dmnet_jax.metrics.PROTOCOLS`, by which its results are published.
        obtain: where the data come from, and the tree that is expected.
        open: opens a raw folder: a `RawSource`, or any `FrameSource` if `endless`.
        names: the videos of the raw folder by name, without opening them.
        read_mask: decodes one mask file.
        is_mask: whether a file of the raw folder is a frame's mask.
        pictures: name of the folders with pictures.
        masks: default name of the mask folders, in the layout of a user's own folder,
            where mask values may mean several things; else "".
        subsets: "train", and "test" if there is a test archive.
        size: default size of images that `prepare` stores; None keeps theirs.
        frames: frames of each video as distributed, by subset; empty if not known.
        remarks: what is unusual about videos and files that were prepared, in words.
        divisions: the published divisions by name, given the videos there are.
        folds: how many divisions are folds, named "fold K" and chosen by `data.fold`;
            the others are chosen by `data.split`.
        published: False for a user's own videos.
        root: default folder of a dataset that `make` writes.
        make: writes the raw folder if it is not there.
        endless: rendered on demand, without files: `root` and `prepare` do not apply,
            and training draws new scenes for ever.
    """

    name: str
    classes: Mapping[str, tuple[ClassInfo, ...]]
    protocol: str
    obtain: str
    open: Callable[[Path, Request, Selection], FrameSource]
    names: Callable[[Path, Request], list[str]]
    read_mask: Callable[[Path, Request], np.ndarray] = _no_masks
    is_mask: Callable[[Path, Request], bool] = _in_mask_folder
    pictures: str = "frames"
    masks: str = ""
    subsets: tuple[str, ...] = ("train",)
    size: tuple[int, int] | None = None
    frames: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    remarks: Callable[[Collection[str], Iterable[str]], list[str]] = _no_remarks
    divisions: Callable[[Sequence[str]], dict[str, Division]] = _none
    folds: int = 0
    published: bool = True
    root: str = ""
    make: Callable[[Path, SyntheticConfig], None] | None = None
    endless: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, the default first; none if there is no choice."""
        return tuple(task for task in self.classes if task)

    @property
    def rendered(self) -> bool:
        """Whether pictures are drawn, with their masks."""
        return self.endless or self.make is not None

    def division(
        self, fold: int, split: str, videos: Sequence[str]
    ) -> tuple[str, Division | None]:
        """The published division that a config means.

        Args:
            fold: number of the fold, if the dataset has folds.
            split: name of the division, if it has several that are no folds.
            videos: names of the videos there are.

        Returns:
            Its name, and the division; None if the dataset has no such division.
        """
        found = self.divisions(videos)
        name = f"fold {fold}" if self.folds else split
        if len(found) == 1:
            (name,) = found
        return name, found.get(name)


def check_division(
    division: Division,
    train: Sequence[str],
    val: Sequence[str],
    name: str,
    advice: str = "add the videos",
) -> None:
    """Checks that the videos of a division are there.

    Args:
        division: what is needed.
        train: names of the videos that there are to train on.
        val: names of those that there are to validate on.
        name: of the division, for the error.
        advice: what to do about missing videos, for the error.

    Raises:
        DataError: names the videos that are missing, in one line.
    """
    missing = [video for video in division.train if video not in train]
    missing += [video for video in division.val if video not in val]
    if missing or not (division.train and division.val):
        there = ", ".join(dict.fromkeys([*train, *val]))
        what = f"lacks {', '.join(missing)}" if missing else "has an empty part"
        raise DataError(
            [
                f"{name} {what}; there are {there}; {advice}, or name those to use in "
                "data.train and data.val"
            ]
        )
