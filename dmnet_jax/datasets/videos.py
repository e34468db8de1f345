"""From a run's data configuration to videos: what trains and what validates."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import (
    DataError,
    FrameSource,
    Selected,
    cache_frames,
    resize_frames,
    select_videos,
)
from data_pipelines.io.files import as_write_error
from data_pipelines.loading.labels import check_labels
from data_pipelines.loading.leakage import check_disjoint
from data_pipelines.prepared import MANIFEST
from data_pipelines.sources import DATASETS, Request, check_division
from data_pipelines.sources.folder import mask_values_advice
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets.opening import needed, opened, unnamed


def open_dataset(data: DataConfig, names: Sequence[str] | None = None) -> FrameSource:
    """The videos of the dataset, at their stored size.

    The synthetic set is rendered on first use; nothing is ever downloaded. A folder
    made by `data_pipelines.prepare` is recognised by its manifest.

    Args:
        data: which dataset.
        names: the videos that are needed, if that is known: no other is looked at.

    Raises:
        ValueError: the folder is missing, wrong or empty; tells what is expected.
    """
    dataset = DATASETS[data.dataset]
    root = data.root or dataset.root
    if dataset.make is not None:
        with as_write_error(root):
            dataset.make(Path(root), data.synthetic)
    if not (root or dataset.endless):
        raise DataError(
            [f"data.root is not set; give the {data.dataset} folder: --data.root DIR"]
        )
    return opened(data, root, "train", names)


def open_validation(
    data: DataConfig, names: Sequence[str] | None = None
) -> FrameSource:
    """The videos of the dataset that may validate, at their stored size.

    Those in `data.test_root` if it is set, else those of `open_dataset`.

    Args:
        data: which dataset.
        names: as in `open_dataset`.

    Raises:
        ValueError: as `open_dataset`.
    """
    if data.test_root:
        return opened(data, data.test_root, "test", names)
    return open_dataset(data, names)


def split_names(
    data: DataConfig, train: FrameSource, val: FrameSource | None = None
) -> tuple[list[str], list[str]]:
    """Names of the training and the validation videos.

    Those listed in the config; else those of the dataset's published division.

    Args:
        data: says which division.
        train: the videos there are to train on.
        val: those there are to validate on, if others.

    Raises:
        ValueError: neither says which, or videos of the division are not there.
    """
    if data.train and data.val:
        return list(data.train), list(data.val)
    known, dataset = _names(train), DATASETS[data.dataset]
    name, division = dataset.division(data.fold, data.split, known)
    published = ", ".join(dataset.divisions(known))
    if data.train or data.val or not published:
        raise unnamed(data, known)
    if division is None:
        raise DataError([f"{data.dataset} has no {name!r}: use one of {published}"])
    if division.in_archive and val is None:
        raise DataError(
            [
                f"data.split {name} validates on the test archive; give its folder: "
                "--data.test-root DIR"
            ]
        )
    render = "render more with data.synthetic.sequences"
    advice = "add the videos" if dataset.make is None else render
    check_division(division, known, known if val is None else _names(val), name, advice)
    return list(division.train), list(division.val)


def open_split(data: DataConfig) -> tuple[FrameSource, FrameSource]:
    """(training, validation) videos: images at the network's size, in memory.

    Raises:
        ValueError: as `open_dataset`; also if the config's class count is wrong, or
            a frame is in both parts (`data_pipelines.loading.leakage`).
    """
    dataset = DATASETS[data.dataset]
    if dataset.masks and not (data.train and data.val):
        known = dataset.names(Path(data.root), Request(data.dataset))
        if known and not (Path(data.root) / MANIFEST).is_file():
            raise unnamed(data, known)
    train_needed, val_needed = needed(data)
    if data.test_root:
        source = _checked(open_dataset(data, train_needed), data)
        apart = _checked(open_validation(data, val_needed), data)
    else:
        both = None if train_needed is None else [*train_needed, *(val_needed or ())]
        source, apart = _checked(open_dataset(data, both), data), None
    train_names, val_names = split_names(data, source, apart)
    train, val = (
        select_videos(source, train_names),
        select_videos(apart or source, val_names),
    )
    if not dataset.endless:  # whose scenes differ by their numbers
        check_disjoint(train, val)
    return _ready(train, data), _ready(val, data)


def open_videos(data: DataConfig, names: Sequence[str]) -> FrameSource:
    """The named videos of those that may validate, as `open_split` opens them."""
    source = _checked(open_validation(data, names), data)
    return _ready(select_videos(source, names), data)


def check_masks(
    data: DataConfig, train: FrameSource | None, val: FrameSource
) -> list[str]:
    """Looks at every mask before a run begins; see `data_pipelines.loading.labels`.

    Returns:
        Lines that tell what is unusual and no fault.

    Raises:
        ValueError: a line for every fault.
    """
    dataset = DATASETS[data.dataset]
    if dataset.rendered:  # with their masks
        return []
    try:
        return check_labels(
            train,
            val,
            every_class=not dataset.published and data.absent_classes == "refuse",
            threads=data.threads,
        )
    except DataError as error:
        own = dataset.masks
        ways = mask_values_advice(error.faults, data.mask_values) if own else []
        raise DataError([*error.faults, *ways]) from None


def _names(source: FrameSource) -> list[str]:
    return [video.name for video in source.videos]


def _checked(source: FrameSource, data: DataConfig) -> FrameSource:
    if len(source.classes) != data.num_classes:
        names = ", ".join(info.name for info in source.classes)
        raise DataError(
            [
                f"data.num_classes is {data.num_classes}, but the dataset has "
                f"{len(source.classes)}: {names}"
            ]
        )
    return source


def _ready(videos: Selected, data: DataConfig) -> FrameSource:
    return cache_frames(resize_frames(videos, data.size))
