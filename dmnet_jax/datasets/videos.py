"""From a run's data configuration to videos: what trains and what validates."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import (
    DataError,
    FrameSource,
    Selected,
    cached,
    resized,
    select,
)
from data_pipelines.io.files import naming
from data_pipelines.loading.labels import check_labels
from data_pipelines.loading.leakage import check_disjoint
from data_pipelines.loading.rendered import RenderedVideos
from data_pipelines.prepare import DATASETS, Request
from data_pipelines.prepare.layouts import OWN
from data_pipelines.prepared import MANIFEST
from data_pipelines.sources.folder import other_ways
from data_pipelines.sources.splits import Division, divisions, require
from data_pipelines.synthetic import write_endovis17
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets.opening import needed, opened, unnamed

# Rendered scenes that stand for the endless training videos where some are asked for.
RENDERED_TRAIN = 2


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
    root = data.root
    if data.dataset == "rendered":
        made = data.synthetic
        return RenderedVideos(
            made.seed, RENDERED_TRAIN + made.scenes, made.frames, data.size
        )
    if data.dataset == "synthetic":
        made = data.synthetic
        root = root or "datasets/synthetic"
        with naming(root):
            write_endovis17(
                root,
                seed=made.seed,
                sequences=made.sequences,
                frames=made.frames,
                size=made.size,
            )
    if not root:
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
    known = _names(train)
    if data.dataset == "rendered" and not (data.train or data.val):
        return known[:RENDERED_TRAIN], known[RENDERED_TRAIN:]
    if data.dataset == "synthetic" and not (data.train or data.val):
        part = _rendered(data, known)
        return list(part.train), list(part.val)
    names = {
        "endovis17": f"fold {data.fold}",
        "endovis18": data.split,
        "camvid": "official",
    }
    if data.train or data.val or data.dataset not in names:
        raise unnamed(data, known)
    published = divisions(data.dataset, known)
    name = names[data.dataset]
    if name not in published:
        raise DataError([f"data.fold={data.fold}: folds are 0 to {len(published) - 1}"])
    if name == "challenge" and val is None:
        raise DataError(
            [
                "data.split challenge validates on the test archive; give its folder: "
                "--data.test-root DIR"
            ]
        )
    division = published[name]
    require(division, known, known if val is None else _names(val), name)
    return list(division.train), list(division.val)


def open_split(data: DataConfig) -> tuple[FrameSource, FrameSource]:
    """(training, validation) videos: images at the network's size, in memory.

    Raises:
        ValueError: as `open_dataset`; also if the config's class count is wrong, or
            a frame is in both parts (`data_pipelines.loading.leakage`).
    """
    if data.dataset in OWN and not (data.train and data.val):
        known = DATASETS[data.dataset].names(Path(data.root), Request(data.dataset))
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
    train, val = select(source, train_names), select(apart or source, val_names)
    if data.dataset != "rendered":  # whose scenes differ by their numbers
        check_disjoint(train, val)
    return _ready(train, data), _ready(val, data)


def open_videos(data: DataConfig, names: Sequence[str]) -> FrameSource:
    """The named videos of those that may validate, as `open_split` opens them."""
    source = _checked(open_validation(data, names), data)
    return _ready(select(source, names), data)


def check_masks(
    data: DataConfig, train: FrameSource | None, val: FrameSource
) -> list[str]:
    """Looks at every mask before a run begins; see `data_pipelines.loading.labels`.

    Returns:
        Lines that tell what is unusual and no fault.

    Raises:
        ValueError: a line for every fault.
    """
    if data.dataset in ("synthetic", "rendered"):  # are drawn with their masks
        return []
    try:
        return check_labels(
            train,
            val,
            every_class=data.dataset == "folder" and data.absent_classes == "refuse",
            threads=data.threads,
        )
    except DataError as error:
        own = data.dataset in OWN
        ways = other_ways(error.faults, data.mask_values) if own else []
        raise DataError([*error.faults, *ways]) from None


def _rendered(data: DataConfig, known: Sequence[str]) -> Division:
    """The fold's videos out of those that were rendered, which may be a few."""
    fold = divisions("endovis17").get(f"fold {data.fold}", Division((), ()))
    train, val = (
        tuple(name for name in part if name in known) for part in (fold.train, fold.val)
    )
    if not train or not val:
        raise DataError(
            [
                f"fold {data.fold} has videos to train and to validate on only if "
                f"data.synthetic.sequences has of both; there are {_list(known)}"
            ]
        )
    return Division(train, val)


def _names(source: FrameSource) -> list[str]:
    return [video.name for video in source.videos]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


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
    return cached(resized(videos, data.size))
