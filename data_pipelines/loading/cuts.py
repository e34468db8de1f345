"""Cuts in training sequences: a row continues with another video from some frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipelines.frames import FrameSource
from data_pipelines.loading.loader import Batch, Batches
from data_pipelines.synthetic.fields import generator

FEW_CUTS = 2
"""Maximum number of cuts in half of the sequences with cuts."""
# Separates the random numbers of cuts from those of clips.
_STREAM = 5 << 60


class WithCuts:
    """Batches of sequences, some of which have cuts to the videos of other rows.

    The batch of a step is a pure function of seed and step.

    Args:
        loader: batches of sequences `[b, T, ...]` whose frames are all scored.
        probability: probability that a row has cuts. Half of these rows have up to
            `FEW_CUTS` cuts, like edited video; the others may have a cut at every
            frame, like a folder of unrelated images.
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
        """Returns the batch with cuts; `video` is that of the first frame of a row."""
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
    """Draws which row each frame of each row is taken from, int `[rows, length]`.

    After its n-th cut, a row has the frames of the n-th row after it.

    Args:
        rng: the generator. A cut is never before the first frame.
        rows: number of rows in the batch. With one row there are no cuts.
        length: frames per sequence.
        probability: probability that a row has cuts.
    """
    shift = np.zeros((rows, length), np.intp)
    for row in range(rows):
        if rng.random() < probability and length > 1:
            limit = length - 1 if rng.random() < 0.5 else min(FEW_CUTS, length - 1)
            count = int(rng.integers(1, limit + 1))
            starts = 1 + rng.choice(length - 1, count, replace=False)
            shift[row] = (np.arange(length)[:, None] >= starts).sum(1)
    return (np.arange(rows)[:, None] + shift) % rows
