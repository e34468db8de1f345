"""Rendered scenes as data: an endless stream to train on.

The stream needs no disk. Every row of a batch shows a scene of its own for `hold`
steps, which spreads the cost of preparing it, and rows change scenes at different
steps. What a row shows is a function of seed, step and row alone, so batches are the
same bytes with any number of workers, and to resume is to ask for the next step.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from data_pipelines.corruption import Corruption, corrupt_clip
from data_pipelines.frames import FrameSource, Video
from data_pipelines.io.environment import end_with_parent
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec, sample_clip
from data_pipelines.sources.rendered import STREAM_RATE, part_label
from data_pipelines.synthetic.fields import generator
from data_pipelines.synthetic.render import Scene, render_frame
from data_pipelines.synthetic.variety import make_varied_scene

Batch = dict[str, np.ndarray]

# Frames of scene time from which a clip may start: as long as an arm's slow motions.
_LENGTH = 1500


@dataclass(frozen=True)
class SceneStream:
    """Batches of clips from scenes that follow one another without end.

    Batches as of `data_pipelines.loading.loader`; `batch` has the arrays of
    `ClipLoader.batch`; `video` is the scene's number and `frame` the frame's in it.

    Attributes:
        source: videos of the same kind, for what asks a loader for its videos.
        spec: shape of a clip.
        batch_size: clips a step, over all processes.
        seed: 0 <= seed < 2**63.
        size: (height, width) of the frames.
        augment: random changes of a clip.
        corruption: bursts of corrupted frames in some clips.
        hold: steps that a row shows one scene.
        rate: frames a second of a clip.
        steps_per_epoch: what counts as an epoch.
        workers: rendering processes; 0 renders in this one.
        process_index: this process, of several that train together.
        process_count: processes that train together.
    """

    source: FrameSource
    spec: ClipSpec
    batch_size: int
    seed: int
    size: tuple[int, int]
    augment: Augment
    corruption: Corruption | None = None
    hold: int = 8
    rate: float = STREAM_RATE
    steps_per_epoch: int = 100
    workers: int = 2
    process_index: int = 0
    process_count: int = 1

    @property
    def rows(self) -> int:
        """Clips a step of this process."""
        return self.batch_size // self.process_count

    def batch(self, step: int) -> Batch:
        """The batch of a step, rendered in this process."""
        first = self.process_index * self.rows
        return _stacked([self.row(step, first + row) for row in range(self.rows)])

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for the steps of a range, rendered ahead by workers.

        Raises:
            concurrent.futures.process.BrokenProcessPool: a worker was killed.
        """
        if self.workers == 0:
            yield from map(self.batch, range(start_step, stop_step))
            return
        first = self.process_index * self.rows
        # A row stays with its worker, which keeps the scene that the row shows.
        context = multiprocessing.get_context("spawn")
        pools = [
            ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker)
            for _ in range(min(self.workers, self.rows))
        ]
        ahead: deque[list[Future[Batch]]] = deque()
        steps = iter(range(start_step, stop_step))
        try:
            while True:
                while len(ahead) < 4 and (step := next(steps, None)) is not None:
                    ahead.append(
                        [
                            pools[row % len(pools)].submit(self.row, step, first + row)
                            for row in range(self.rows)
                        ]
                    )
                if not ahead:
                    return
                yield _stacked([future.result() for future in ahead.popleft()])
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)

    def video_name(self, video: int) -> str:
        """The name of the scene with that number."""
        return f"scene {video}"

    def row(self, step: int, row: int) -> Batch:
        """One clip of a step's batch, without the batch's axis."""
        # Rows change scenes at steps of their own, so that no step pays for all.
        turn = step + row * self.hold // self.batch_size
        number = (turn // self.hold) * self.batch_size + row
        rng = generator(self.seed, number, 90, turn % self.hold)
        last = int(rng.integers(self.spec.length, _LENGTH))
        video = Video("", tuple(str(frame) for frame in range(last + 1)))
        clip = sample_clip(rng, [video], 0, last, self.spec)
        drawn = self.augment.draw(rng, self.size)
        scene = _shown_by(row, self.seed, number, self.size, self.rate)
        shown = [
            render_frame(scene, int(index)) for index in (*clip.frames, *clip.past)
        ]
        images = np.stack([drawn.image(f.rgb, place) for place, f in enumerate(shown)])
        length = self.spec.length
        if self.corruption is not None:
            rng = generator(self.seed, number, 91, turn % self.hold)
            images[:length] = corrupt_clip(
                images[:length],
                self.corruption.draw(rng, length),
                rng,
                kinds=self.corruption.kinds,
            )
        scored = shown[:length] if self.spec.score_all else shown[length - 1 : length]
        labels = np.stack([drawn.label(part_label(frame)) for frame in scored])
        return {
            "frames": images[:length],
            "frames_mask": clip.frames_mask,
            "past": images[length:],
            "past_mask": clip.past_mask,
            "label": labels if self.spec.score_all else labels[0],
            "video": np.array(number, np.int32),
            "frame": np.array(last, np.int32),
        }


def _start_worker() -> None:
    """In a worker: leaves signals to the trainer, and ends when that is gone."""
    # A signal to the whole group is for the trainer, which saves and then ends us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


_Key = tuple[int, int, tuple[int, int], float]

# By row: what its scene was made of, and the scene. A row needs no other one, and a
# process that renders for a trainer has a few rows.
_scenes: dict[int, tuple[_Key, Scene]] = {}


def _shown_by(
    row: int, seed: int, number: int, size: tuple[int, int], rate: float
) -> Scene:
    """The scene that a row shows, prepared when it is shown for the first time."""
    key = (seed, number, size, rate)
    if row not in _scenes or _scenes[row][0] != key:
        _scenes[row] = key, make_varied_scene(*key)
    return _scenes[row][1]


def _stacked(rows: list[Batch]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
