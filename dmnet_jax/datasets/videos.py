"""Opening of the training and validation videos of a data configuration."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import (
    DataError,
    FrameSource,
    cache_frames,
    keep_labels,
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
from dmnet_jax.datasets.opening import (
    missing_names_error,
    open_root,
    required_names,
)


def open_dataset(data: DataConfig, names: Sequence[str] | None = None) -> FrameSource:
    """Opens the videos of a dataset, at their stored size.

    The synthetic dataset is rendered on first use; nothing is ever downloaded. A folder
    written by `data_pipelines.prepare` is recognized by its manifest.

    Args:
        data: config of the dataset.
        names: names of the videos that are needed; others are not read. None: all.

    Raises:
        ValueError: the folder is missing, invalid or empty; says what is expected.
    """
    dataset = DATASETS[data.dataset]
    root = data.root or dataset.root
    if dataset.make is not None:
        with as_write_error(root):
            dataset.make(Path(root), data.synthetic)
    if not (root or dataset.endless):
        raise DataError(
            [
                f"data.root is not set; give the {data.dataset} folder: --data.root "
                "DIR, in evaluate.py --root DIR"
            ]
        )
    return open_root(data, root, "train", names)


def open_validation(
    data: DataConfig, names: Sequence[str] | None = None
) -> FrameSource:
    """Opens the videos that can be used for validation, at their stored size.

    These are the videos in `data.test_root` if it is set, or else those of
    `open_dataset`.

    Args:
        data: config of the dataset.
        names: see `open_dataset`.

    Raises:
        ValueError: see `open_dataset`.
    """
    if data.test_root:
        return open_root(data, data.test_root, "test", names)
    return open_dataset(data, names)


def split_names(
    data: DataConfig, train: FrameSource, val: FrameSource | None = None
) -> tuple[list[str], list[str]]:
    """Returns the names of the training and validation videos.

    These are the names in the config, or else those of the dataset's published
    division.

    Args:
        data: config of the dataset.
        train: videos available for training.
        val: videos available for validation, if different.

    Raises:
        ValueError: neither the config nor a division defines the names, or videos of
            the division are missing.
    """
    if data.train and data.val:
        return list(data.train), list(data.val)
    known, dataset = _names(train), DATASETS[data.dataset]
    name, division = dataset.division(data.fold, data.split, known)
    published = ", ".join(dataset.divisions(known))
    if data.train or data.val or not published:
        raise missing_names_error(data, known)
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
    """Opens the training and validation videos, resized for the network, in memory.

    Raises:
        ValueError: see `open_dataset`; also if the number of classes differs from the
            config's, or if a frame is in both parts (`data_pipelines.loading.leakage`).
    """
    dataset = DATASETS[data.dataset]
    if dataset.masks and not (data.train and data.val):
        known = dataset.names(Path(data.root), Request(data.dataset))
        if known and not (Path(data.root) / MANIFEST).is_file():
            raise missing_names_error(data, known)
    train_names, val_names = required_names(data)
    if data.test_root:
        source = open_dataset(data, train_names)
        _check_classes(source, data)
        test_source = open_validation(data, val_names)
        _check_classes(test_source, data)
    else:
        names = None if train_names is None else [*train_names, *(val_names or ())]
        source, test_source = open_dataset(data, names), None
        _check_classes(source, data)
    train_names, val_names = split_names(data, source, test_source)
    train, val = (
        select_videos(source, train_names),
        select_videos(test_source or source, val_names),
    )
    if not dataset.endless:  # rendered scenes are distinct by construction
        check_disjoint(train, val)
    if data.max_labels:
        train = keep_labels(train, data.max_labels)
    return _resize_and_cache(train, data), _resize_and_cache(val, data)


def open_videos(data: DataConfig, names: Sequence[str]) -> FrameSource:
    """Opens the named validation videos like `open_split`."""
    source = open_validation(data, names)
    _check_classes(source, data)
    return _resize_and_cache(select_videos(source, names), data)


def check_masks(
    data: DataConfig, train: FrameSource | None, val: FrameSource
) -> list[str]:
    """Checks every mask before a run starts; see `data_pipelines.loading.labels`.

    Returns:
        Notes about masks that are unusual but valid.

    Raises:
        ValueError: masks are invalid; one line per fault.
    """
    dataset = DATASETS[data.dataset]
    if dataset.rendered:  # masks are rendered too, so they are valid
        return []
    try:
        return check_labels(
            train,
            val,
            every_class=not dataset.published and data.absent_classes == "refuse",
            threads=data.threads,
        )
    except DataError as error:
        hints = (
            mask_values_advice(error.faults, data.mask_values) if dataset.masks else []
        )
        raise DataError([*error.faults, *hints]) from None


def _names(source: FrameSource) -> list[str]:
    return [video.name for video in source.videos]


def _check_classes(source: FrameSource, data: DataConfig) -> None:
    if len(source.classes) != data.num_classes:
        names = ", ".join(info.name for info in source.classes)
        raise DataError(
            [
                f"data.num_classes is {data.num_classes}, but the dataset has "
                f"{len(source.classes)}: {names}"
            ]
        )


def _resize_and_cache(videos: FrameSource, data: DataConfig) -> FrameSource:
    return cache_frames(resize_frames(videos, data.size))
