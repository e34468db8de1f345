"""From a run's data configuration to videos: what trains and what validates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_pipelines.augment import Augment
from data_pipelines.clips import ClipSpec
from data_pipelines.endovis17 import fold_split, open_endovis17
from data_pipelines.endovis18 import open_endovis18
from data_pipelines.folder import open_folder
from data_pipelines.frames import DataError, FrameSource, cached, resized, select
from data_pipelines.loader import ClipLoader
from data_pipelines.records import open_prepared
from data_pipelines.synthetic import write_endovis17
from dmnet_jax.config import Config, DataConfig

ENDOVIS15_CLASSES = ("background", "shaft", "manipulator")


def open_dataset(data: DataConfig) -> FrameSource:
    """All videos of the dataset, at their stored size.

    The synthetic set is rendered on first use; nothing is ever downloaded. A folder
    made by `data_pipelines.prepare` is recognised by its manifest.

    Raises:
        ValueError: the folder is missing, wrong or empty; tells what is expected.
    """
    if data.dataset == "synthetic":
        root = Path(data.root or "datasets/synthetic")
        made = data.synthetic
        write_endovis17(
            root,
            seed=made.seed,
            sequences=made.sequences,
            frames=made.frames,
            size=made.size,
        )
        return open_endovis17(root, task=data.task)
    if not data.root:
        raise DataError(
            [f"data.root is not set; give the {data.dataset} folder: --data.root DIR"]
        )
    if (Path(data.root) / "manifest.json").is_file():
        return open_prepared(data.root)
    if data.dataset == "endovis18":
        task = "all" if data.num_classes == 12 else "parts"
        return open_endovis18(data.root, task=task)
    if data.dataset == "endovis15":
        return open_folder(data.root, masks="parts", classes=ENDOVIS15_CLASSES)
    if data.dataset == "endovis17":
        return open_endovis17(data.root, task=data.task)
    return open_folder(data.root, masks=data.masks)


def split_names(data: DataConfig, source: FrameSource) -> tuple[list[str], list[str]]:
    """Names of the training and the validation videos.

    Those listed in the config; else the fold's (EndoVis17 and its imitation).

    Raises:
        ValueError: neither says which, or the fold's videos are not there.
    """
    if data.train and data.val:
        return list(data.train), list(data.val)
    if data.dataset not in ("endovis17", "synthetic"):
        raise DataError(
            [
                "data.train and data.val must name the videos; there are "
                + ", ".join(video.name for video in source.videos)
            ]
        )
    known = {video.name for video in source.videos}
    train, val = (
        [name for k in numbers if (name := f"instrument_dataset_{k}") in known]
        for numbers in fold_split(data.fold)
    )
    if not train or not val:
        raise DataError(
            [
                f"fold {data.fold} needs sequences {fold_split(data.fold)}; "
                f"there are {', '.join(sorted(known))}"
            ]
        )
    return train, val


def open_split(data: DataConfig) -> tuple[FrameSource, FrameSource]:
    """(training, validation) videos: images at the network's size, in memory.

    Raises:
        ValueError: as `open_dataset`; also if the config's class count is wrong.
    """
    source = _checked(open_dataset(data), data)
    train, val = split_names(data, source)
    return _ready(source, train, data), _ready(source, val, data)


def open_videos(data: DataConfig, names: Sequence[str]) -> FrameSource:
    """The named videos, as `open_split` opens them."""
    return _ready(_checked(open_dataset(data), data), names, data)


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


def _ready(source: FrameSource, names: Sequence[str], data: DataConfig) -> FrameSource:
    return cached(resized(select(source, names), data.size))


@dataclass(frozen=True)
class Stage:
    """One stage of a run: what it trains, on which clips, over which steps.

    Attributes:
        name: shown in the log.
        part: what it trains.
        recipe: what its batches are.
        cached_views: see `StageConfig`.
        lr_scale: factor on the learning rate.
        loader: its clips; batches are numbered over the whole run.
        begin: steps taken before it.
        end: steps taken when it is over.
    """

    name: str
    part: Literal["all", "memory", "single_frame"]
    recipe: Literal["clip", "rollout"]
    cached_views: int
    lr_scale: float
    loader: ClipLoader
    begin: int
    end: int


def stage_loaders(source: FrameSource, config: Config) -> tuple[Stage, ...]:
    """The stages of a run, in order. A single-frame stage gets clips of one frame."""
    data, model, train = config.data, config.model, config.train
    stages, begin = [], 0
    for stage in train.resolved_stages:
        alone = stage.train == "single_frame"
        spec = ClipSpec(
            local_size=0 if alone or model.local == "none" else model.local_size,
            num_past=0 if alone or not model.global_memory else model.num_reads,
        )
        if stage.recipe == "rollout":
            spec = ClipSpec(train.rollout_frames - 1, num_past=0, score_all=True)
        loader = ClipLoader(
            source,
            spec,
            batch_size=train.batch_size,
            seed=train.seed,
            augment=Augment(
                flip_horizontal=data.flip_horizontal,
                flip_vertical=data.flip_vertical,
                scale=data.scale,
                photometric=data.photometric,
            ),
            threads=data.threads,
            frame_step=data.frame_step,
        )
        end = begin + stage.epochs * loader.steps_per_epoch
        stages.append(
            Stage(
                stage.name,
                stage.train,
                stage.recipe,
                stage.cached_views,
                stage.lr_scale,
                loader,
                begin,
                end,
            )
        )
        begin = end
    return tuple(stages)
