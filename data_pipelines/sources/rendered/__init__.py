"""An endless stream of random rendered scenes, without files."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.frames import FrameSource
from data_pipelines.sources.dataset import Dataset, Division, Request, Selection
from data_pipelines.sources.rendered.reader import (
    PART_CLASSES,
    STREAM_RATE,
    RenderedVideos,
    part_label,
)

# Number of scenes that represent the endless training videos in the source.
_TRAIN = 2


def _open(root: Path, request: Request, selection: Selection) -> FrameSource:
    config = selection.synthetic
    return RenderedVideos(
        config.seed, _TRAIN + config.scenes, config.frames, selection.size
    )


def _names(root: Path, request: Request) -> list[str]:
    return []


def _divisions(videos: Sequence[str]) -> dict[str, Division]:
    return {"official": Division(tuple(videos[:_TRAIN]), tuple(videos[_TRAIN:]))}


DATASET = Dataset(
    name="rendered",
    classes={"": PART_CLASSES},
    protocol="global",
    obtain="Rendered while it is read; see data_pipelines.synthetic.variety.",
    open=_open,
    names=_names,
    divisions=_divisions,
    endless=True,
)

__all__ = ["DATASET", "PART_CLASSES", "STREAM_RATE", "RenderedVideos", "part_label"]
