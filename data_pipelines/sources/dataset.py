"""Descriptions of datasets, the only interface through which datasets are used.

Each package in this folder exports a `Dataset` named `DATASET`, and
`data_pipelines.sources.DATASETS` lists them. Configs, `prepare`, training and
evaluation use the description and never check which dataset it is.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data_pipelines.frames import ClassInfo, DataError, FrameSource
from data_pipelines.synthetic.config import SyntheticConfig

MaskValues = Literal["class", "binary", "colors"]
"""How mask values are interpreted; see `data_pipelines.sources.folder.masks`."""

MASK_VALUES: tuple[MaskValues, ...] = get_args(MaskValues)


@dataclass(frozen=True)
class Request:
    """What to read from a raw dataset, and how to store it.

    Attributes:
        dataset: one of `DATASETS`.
        task: the set of classes, if the dataset has several tasks; else "".
        masks: name of the mask folders (datasets in the folder layout); else "".
        size: (height, width) of stored images; None keeps their size.
        encoding: encoding of stored images, "png" or "jpeg".
        on_unknown: treatment of label colors that belong to no class (EndoVis 2018):
            "error", "ignore" or "nearest".
        allow_missing: accept frames without a mask (datasets in the folder layout).
        subset: "train", or "test" for a test archive.
        mask_values: how mask values are interpreted (datasets in the folder layout);
            see `data_pipelines.sources.folder.masks`.
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
    """The part of a dataset that a run uses; other files are not read.

    Attributes:
        videos: names of the videos; None: all.
        num_classes: number of classes, for folders that do not define them.
        size: (height, width) of frames that are rendered on demand.
        synthetic: what to render, for rendered datasets.
    """

    videos: Sequence[str] | None = None
    num_classes: int | None = None
    size: tuple[int, int] = (512, 640)
    synthetic: SyntheticConfig = SyntheticConfig()


ALL = Selection()


@dataclass(frozen=True)
class Division:
    """A published division into training and validation videos.

    Attributes:
        train: names of the training videos.
        val: names of the validation videos.
        in_archive: whether the validation videos are in the test archive.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    in_archive: bool = False


def _no_divisions(videos: Sequence[str]) -> dict[str, Division]:
    return {}


def _no_remarks(videos: Collection[str], files: Iterable[str]) -> list[str]:
    return []


def _no_masks(path: Path, request: Request) -> np.ndarray:
    raise DataError([f"{path}: dataset {request.dataset} has no mask files"])


def _in_mask_folder(path: Path, request: Request) -> bool:
    return path.parent.name == (request.masks or "masks")


@dataclass(frozen=True)
class Dataset:
    """The description of a dataset.

    Attributes:
        name: name in configs and commands.
        classes: classes by task, default task first, background first. A dataset
            without tasks has one entry, ""; it is an empty tuple if the folder defines
            the classes.
        protocol: evaluation protocol, one of `dmnet_jax.metrics.PROTOCOLS`.
        obtain: how to obtain the data, and the expected folder layout.
        open: opens a raw folder as a `RawSource`, or any `FrameSource` if `endless`.
        names: lists the names of the videos in a raw folder without opening them.
        read_mask: decodes a mask file.
        is_mask: whether a file of the raw folder is a mask.
        pictures: name of the folders that contain frames.
        masks: default name of the mask folders (datasets in the folder layout, whose
            mask values can be interpreted in several ways); else "".
        subsets: "train", and "test" if there is a test archive.
        size: default size of images that `prepare` stores; None keeps their size.
        frames: number of frames per video as distributed, by subset; empty if unknown.
        remarks: describes unusual videos and files of prepared data.
        divisions: returns the published divisions by name, given the existing videos.
        folds: number of divisions that are folds, named "fold K" and selected by
            `data.fold`; the others are selected by `data.split`.
        published: False for a user's own videos.
        root: default folder of a dataset that `make` writes.
        make: writes the raw folder if it does not exist.
        endless: whether frames are rendered on demand, without files: `root` and
            `prepare` do not apply, and training renders new scenes indefinitely.
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
    divisions: Callable[[Sequence[str]], dict[str, Division]] = _no_divisions
    folds: int = 0
    published: bool = True
    root: str = ""
    make: Callable[[Path, SyntheticConfig], None] | None = None
    endless: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, the default first; empty if there is no choice."""
        return tuple(task for task in self.classes if task)

    @property
    def rendered(self) -> bool:
        """Whether frames and masks are rendered."""
        return self.endless or self.make is not None

    def division(
        self, fold: int, split: str, videos: Sequence[str]
    ) -> tuple[str, Division | None]:
        """Returns the published division that a config selects.

        Args:
            fold: number of the fold, if the dataset has folds.
            split: name of the division, if the dataset has several others.
            videos: names of the existing videos.

        Returns:
            (name, division); the division is None if the dataset has none of that name.
        """
        divisions = self.divisions(videos)
        name = f"fold {fold}" if self.folds else split
        if len(divisions) == 1:
            (name,) = divisions
        return name, divisions.get(name)


def check_division(
    division: Division,
    train: Sequence[str],
    val: Sequence[str],
    name: str,
    advice: str = "add the videos",
) -> None:
    """Checks that the videos of a division exist.

    Args:
        division: the required videos.
        train: names of the videos available for training.
        val: names of the videos available for validation.
        name: name of the division, for the message.
        advice: what to do about missing videos, for the message.

    Raises:
        DataError: videos are missing, or a part of the division is empty.
    """
    missing = [video for video in division.train if video not in train]
    missing += [video for video in division.val if video not in val]
    if missing or not (division.train and division.val):
        existing = ", ".join(dict.fromkeys([*train, *val]))
        problem = f"lacks {', '.join(missing)}" if missing else "has an empty part"
        raise DataError(
            [
                f"{name} {problem}; there are {existing}; {advice}, or name the videos "
                "to use in data.train and data.val"
            ]
        )
