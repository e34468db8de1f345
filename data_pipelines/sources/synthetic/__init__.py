"""Rendered video in the layout of EndoVis 2017, written on first use."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.sources import endovis17
from data_pipelines.sources.dataset import Division
from data_pipelines.synthetic import write_endovis17
from data_pipelines.synthetic.config import SyntheticConfig


def _divisions(videos: Sequence[str]) -> dict[str, Division]:
    """Returns the folds of EndoVis 2017, restricted to the rendered sequences."""
    return {
        name: Division(
            tuple(video for video in fold.train if video in videos),
            tuple(video for video in fold.val if video in videos),
        )
        for name, fold in endovis17.DATASET.divisions(videos).items()
    }


def _make(root: Path, config: SyntheticConfig) -> None:
    write_endovis17(
        root,
        seed=config.seed,
        sequences=config.sequences,
        frames=config.frames,
        size=config.size,
        rate=config.rate,
    )


DATASET = dataclasses.replace(
    endovis17.DATASET,
    name="synthetic",
    obtain="Rendered on first use; see data_pipelines.synthetic.",
    subsets=("train",),
    frames={},
    divisions=_divisions,
    root="datasets/synthetic",
    make=_make,
)

__all__ = ["DATASET"]
