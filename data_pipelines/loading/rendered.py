"""Renders an endless stream of training clips.

Every row of a batch shows one scene for `hold` steps, which spreads the cost of
preparing a scene, and rows change scenes at different steps. The content of a row is a
pure function of seed, step and row. Batches are therefore identical with any number of
workers, and a run resumes by requesting the next step.
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
from data_pipelines.loading.loader import Batch
from data_pipelines.sources.rendered import STREAM_RATE, part_label
from data_pipelines.synthetic.fields import generator
from data_pipelines.synthetic.render import Scene, render_frame
from data_pipelines.synthetic.variety import make_varied_scene

# Clips end before this frame of a scene, a time as long as slow motions of an arm.
_LENGTH = 1500


@dataclass(frozen=True)
class SceneStream:
    """Batches of clips from an endless sequence of scenes.

    `batch` returns the arrays of `ClipLoader.batch`; `video` is the number of the scene
    and `frame` that of the frame in it.

    Attributes:
        source: videos of the same kind, for code that inspects a loader's source.
        spec: number of frames in a clip.
        batch_size: clips per step over all processes.
        seed: 0 <= seed < 2**63.
        size: (height, width) of the frames.
        augment: random augmentation of clips.
        corruption: bursts of corrupted frames in some clips; None: none.
        hold: number of steps for which a row shows the same scene.
        rate: frames per second.
        steps_per_epoch: number of steps that count as an epoch.
        workers: rendering processes; 0 renders in this process.
        process_index: index of this process among those that train together.
        process_count: number of processes that train together.
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
        """Clips per step of this process."""
        return self.batch_size // self.process_count

    def batch(self, step: int) -> Batch:
        """Renders the batch of a step in this process."""
        first = self.process_index * self.rows
        return _stack([self.row(step, first + row) for row in range(self.rows)])

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for a range of steps, prefetched by workers.

        Raises:
            concurrent.futures.process.BrokenProcessPool: a worker was killed.
        """
        if self.workers == 0:
            yield from map(self.batch, range(start_step, stop_step))
            return
        first = self.process_index * self.rows
        # A row is always rendered by the same worker, which keeps its scene.
        context = multiprocessing.get_context("spawn")
        pools = [
            ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker)
            for _ in range(min(self.workers, self.rows))
        ]
        pending: deque[list[Future[Batch]]] = deque()
        steps = iter(range(start_step, stop_step))
        try:
            while True:
                while len(pending) < 4 and (step := next(steps, None)) is not None:
                    pending.append(
                        [
                            pools[row % len(pools)].submit(self.row, step, first + row)
                            for row in range(self.rows)
                        ]
                    )
                if not pending:
                    return
                yield _stack([future.result() for future in pending.popleft()])
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)

    def video_name(self, video: int) -> str:
        """Returns the name of the scene with this number."""
        return f"scene {video}"

    def row(self, step: int, row: int) -> Batch:
        """Renders one clip of a batch; arrays have no batch axis."""
        # An offset per row, so that rows do not change scenes at the same step.
        position = step + row * self.hold // self.batch_size
        number = (position // self.hold) * self.batch_size + row
        rng = generator(self.seed, number, 90, position % self.hold)
        last = int(rng.integers(self.spec.length, _LENGTH))
        video = Video("", tuple(str(frame) for frame in range(last + 1)))
        clip = sample_clip(rng, [video], 0, last, self.spec)
        transform = self.augment.draw(rng, self.size)
        scene = _row_scene(row, self.seed, number, self.size, self.rate)
        frames = [
            render_frame(scene, int(index)) for index in (*clip.frames, *clip.past)
        ]
        images = np.stack(
            [transform.image(frame.rgb, index) for index, frame in enumerate(frames)]
        )
        length = self.spec.length
        if self.corruption is not None:
            rng = generator(self.seed, number, 91, position % self.hold)
            images[:length] = corrupt_clip(
                images[:length],
                self.corruption.draw(rng, length),
                rng,
                kinds=self.corruption.kinds,
                layers=self.corruption.layers,
            )
        scored = frames[:length] if self.spec.score_all else frames[length - 1 : length]
        labels = np.stack([transform.label(part_label(frame)) for frame in scored])
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
    """Initializes a worker: ignores signals, and exits when the trainer exits."""
    # A signal to the process group is handled by the trainer, which stops its workers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


_Key = tuple[int, int, tuple[int, int], float]

# The current scene of each row, with the arguments it was made from.
_scenes: dict[int, tuple[_Key, Scene]] = {}


def _row_scene(
    row: int, seed: int, number: int, size: tuple[int, int], rate: float
) -> Scene:
    """Returns the scene of a row, which is made once and then kept."""
    key = (seed, number, size, rate)
    if row not in _scenes or _scenes[row][0] != key:
        _scenes[row] = key, make_varied_scene(*key)
    return _scenes[row][1]


def _stack(rows: list[Batch]) -> Batch:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
