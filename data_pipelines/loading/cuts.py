"""Cuts in training sequences: from some frame on, a row shows another video."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipelines.frames import FrameSource
from data_pipelines.loading.loader import Batch, Batches, generator

FEW_CUTS = 2
"""Cuts in half of the sequences that are cut, at most; in the others any number."""
_STREAM = 5 << 60


class WithCuts:
    """Batches of sequences, some of which are cut over to other rows' videos.

    The batch of a step is a function of seed and step, as the loader's is.

    Args:
        loader: batches of sequences `[b, T, ...]` of which every frame is scored.
        probability: of a row to be cut: half of those once to `FEW_CUTS` times, as
            video is, the others up to once a frame, as a folder of pictures.
        seed: 0 <= seed < 2**63.
    """

    def __init__(self, loader: Batches, probability: float, seed: int):
        self._loader, self._probability, self._seed = loader, probability, seed

    @property
    def source(self) -> FrameSource:
        return self._loader.source

    @property
    def steps_per_epoch(self) -> int:
        return self._loader.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """The loader's batch with its cuts. `video` is that of a row's first frame."""
        return self._cut(step, self._loader.batch(step))

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for the steps of a range."""
        batches = self._loader.iterate(start_step, stop_step)
        for step, batch in enumerate(batches, start_step):
            yield self._cut(step, batch)

    def video_name(self, video: int) -> str:
        return self._loader.video_name(video)

    def _cut(self, step: int, batch: Batch) -> Batch:
        shape = batch["frames_mask"].shape
        rng = generator(self._seed, _STREAM | step)
        rows = cut_rows(rng, *shape, probability=self._probability)
        time = np.arange(shape[1])
        return {
            name: array[rows, time] if array.shape[:2] == shape else array
            for name, array in batch.items()
        }


def cut_rows(
    rng: np.random.Generator, rows: int, length: int, *, probability: float
) -> NDArray[np.intp]:
    """Which row each frame of each row is taken from, int `[rows, length]`.

    After its n-th cut, a row shows the frames of the n-th row after it.

    Args:
        rng: decides which rows are cut, and where; never before the first frame.
        rows: in the batch. A batch of one row has no cuts.
        length: frames of a sequence.
        probability: of a row to be cut.
    """
    shift = np.zeros((rows, length), np.intp)
    for row in range(rows):
        if rng.random() < probability and length > 1:
            most = length - 1 if rng.random() < 0.5 else min(FEW_CUTS, length - 1)
            count = int(rng.integers(1, most + 1))
            starts = 1 + rng.choice(length - 1, count, replace=False)
            shift[row] = (np.arange(length)[:, None] >= starts).sum(1)
    return (np.arange(rows)[:, None] + shift) % rows
