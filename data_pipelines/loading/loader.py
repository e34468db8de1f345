"""Training batches: the batch of a step is a pure function of seed and step.

The order of an epoch is a permutation drawn from (seed, epoch); the clip and the
augmentation of a sample are drawn from (seed, sample), where samples are numbered on
from the first step. So batches are the same bytes with any number of threads, and to
resume is to ask for the next step. Epochs follow each other within a batch: no sample
is dropped and every batch is full.
"""

import contextlib
import functools
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from data_pipelines.corruption import Corruption, corrupt_clip
from data_pipelines.frames import IGNORE, Cached, DataError, FrameSource, resize_label
from data_pipelines.loading.augment import Augment, Transform
from data_pipelines.loading.clips import Clip, ClipSpec, sample_clip

Batch = dict[str, np.ndarray]
"""Arrays by name, see `ClipLoader.batch`."""

_ALIGNMENT = 64
_ORDER_STREAM = 1 << 63


class Batches(Protocol):
    """Numbered batches of clips, for as long as one asks."""

    @property
    def source(self) -> FrameSource: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def batch(self, step: int) -> Batch: ...

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]: ...

    def video_name(self, video: int) -> str:
        """The name of what a batch calls `video`."""
        ...


class ClipLoader:
    """Batches of clips from a source.

    Args:
        source: the frames, all of one size; `cache_frames(resize_frames(...))` is the
            fast one.
        spec: shape of a clip.
        batch_size: B, clips a step, over all processes.
        seed: 0 <= seed < 2**63; decides order, clips and augmentation.
        augment: random changes of a clip; none if not given.
        corruption: which of its frames are corrupted, after that; none if not given.
            `past` is never corrupted.
        threads: threads that fill batches ahead in `iterate`; 0 fills them on demand.
        labeled_only: clips end at labeled frames only. Otherwise at any frame, and the
            label of one without a mask is `IGNORE` everywhere.
        frame_step: clips end at every so many-th frame of a video only, from its first.
        process_index: this process, of several that train together. It reads rows
            `process_index * B/P` onward of the batch, B/P of them.
        process_count: P, processes that train together.

    Raises:
        ValueError: a number is out of its range, or B does not divide by P.
        DataError: there is no frame to train on.
    """

    def __init__(
        self,
        source: FrameSource,
        spec: ClipSpec,
        *,
        batch_size: int,
        seed: int,
        augment: Augment | None = None,
        corruption: Corruption | None = None,
        threads: int = 2,
        labeled_only: bool = True,
        frame_step: int = 1,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if batch_size < 1 or process_count < 1 or batch_size % process_count:
            raise ValueError(
                f"batch_size={batch_size} does not divide over "
                f"process_count={process_count}; make it a multiple"
            )
        if not 0 <= process_index < process_count:
            raise ValueError(
                f"process_index={process_index} is not below {process_count}"
            )
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"seed={seed}: must be from 0 to 2**63 - 1")
        if threads < 0:
            raise ValueError(f"threads={threads}: must be >= 0")
        self.source, self.spec, self.augment = source, spec, augment
        self.corruption = corruption
        self.batch_size, self.seed, self.threads = batch_size, seed, threads
        self.samples = tuple(
            (number, frame)
            for number, video in enumerate(source.videos)
            for frame in range(len(video.frames))
            if frame % frame_step == 0
            and not (labeled_only and frame in video.unlabeled)
        )
        if not self.samples:
            raise DataError(["no frames to train on; the videos have no masks"])
        self.rows = batch_size // process_count
        self._first_row = process_index * self.rows
        self.size = source.image(*self.samples[0]).shape[:2]
        self._pool = BufferPool(self._layout())

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every sample is seen at least once."""
        return -(-len(self.samples) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, in new arrays; b = B/P rows, this process's.

        Returns:
            `frames` uint8 `[b, T, H, W, 3]`, oldest first, and `frames_mask` bool `[b,
            T]`; `past` uint8 `[b, n, H, W, 3]` and `past_mask` bool `[b, n]`; `label`
            uint8 `[b, H, W]` of the last of `frames`, or `[b, T, H, W]` of all of them
            if `spec.score_all`; `video` and `frame` int32 `[b]`, the indices of that
            frame in the source. Where a mask is False the picture is the video's first
            frame and means nothing.

        Raises:
            DataError: an image or mask is at fault; names video and frame.
            RuntimeError: the source failed otherwise; names video and frame.
        """
        batch = BufferPool(self._layout()).take()
        for row in range(self.rows):
            self._fill(batch, step, row)
        return batch

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for the steps of a range, filled ahead by threads.

        Memory is reused, but only once nothing refers to it any more: a batch, or any
        array or device array made over its memory, keeps its content for as long as
        it lives. Leaving the loop ends the threads; `contextlib.closing` does so at
        once even where the iterator itself is still referred to.

        Raises:
            DataError, RuntimeError: as `batch`, when the faulty batch's turn comes.
        """
        if self.threads == 0:
            for step in range(start_step, stop_step):
                batch = self._pool.take()
                for row in range(self.rows):
                    self._fill(batch, step, row)
                yield batch
                del batch
            return
        executor = ThreadPoolExecutor(self.threads, thread_name_prefix="clip-loader")
        ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
        steps = iter(range(start_step, stop_step))
        try:
            while True:
                while len(ahead) < 2 and (step := next(steps, None)) is not None:
                    batch = self._pool.take()
                    work = [
                        executor.submit(self._fill, batch, step, row)
                        for row in range(self.rows)
                    ]
                    ahead.append((batch, work))
                    del batch
                if not ahead:
                    return
                batch, work = ahead.popleft()
                for future in work:
                    future.result()
                del work
                yield batch
                del batch
        finally:
            executor.shutdown(cancel_futures=True)

    def _layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        rows, frames, past = self.rows, self.spec.length, self.spec.num_past
        scored = (frames,) if self.spec.score_all else ()
        shapes = {
            "frames": ((rows, frames, *self.size, 3), np.uint8),
            "frames_mask": ((rows, frames), np.bool_),
            "past": ((rows, past, *self.size, 3), np.uint8),
            "past_mask": ((rows, past), np.bool_),
            "label": ((rows, *scored, *self.size), np.uint8),
            "video": ((rows,), np.int32),
            "frame": ((rows,), np.int32),
        }
        return {name: (shape, np.dtype(kind)) for name, (shape, kind) in shapes.items()}

    def video_name(self, video: int) -> str:
        """The name of a video of the source, by its index there."""
        return self.source.videos[video].name

    def draw(self, step: int, row: int) -> tuple[int, int, Clip, np.random.Generator]:
        """What a row of a step's batch shows, before anything is read.

        Returns:
            Video, frame, clip, and the generator of the rest: the augmentation.
        """
        number = step * self.batch_size + self._first_row + row
        epoch, position = divmod(number, len(self.samples))
        order = epoch_order(self.seed, epoch, len(self.samples))
        video, frame = self.samples[order[position]]
        rng = generator(self.seed, number)
        clip = sample_clip(rng, self.source.videos, video, frame, self.spec)
        return video, frame, clip, rng

    def _fill(self, batch: Batch, step: int, row: int) -> None:
        video, frame, clip, rng = self.draw(step, row)
        drawn = None if self.augment is None else self.augment.draw(rng, self.size)
        for place, index in enumerate((*clip.frames, *clip.past)):
            image = self.image(video, int(index), drawn, place)
            if place < self.spec.length:
                batch["frames"][row, place] = image
            else:
                batch["past"][row, place - self.spec.length] = image
        if self.corruption is not None:
            frames = batch["frames"][row]
            chosen = self.corruption.draw(rng, len(frames)) & clip.frames_mask
            kinds = self.corruption.kinds
            batch["frames"][row] = corrupt_clip(frames, chosen, rng, kinds=kinds)
        if self.spec.score_all:
            for place, index in enumerate(clip.frames):
                batch["label"][row, place] = (
                    self.label(video, int(index), drawn)
                    if clip.frames_mask[place]
                    else IGNORE
                )
        else:
            batch["label"][row] = self.label(video, frame, drawn)
        batch["frames_mask"][row] = clip.frames_mask
        batch["past_mask"][row] = clip.past_mask
        batch["video"][row], batch["frame"][row] = video, frame

    def image(
        self, video: int, frame: int, drawn: Transform | None, place: int
    ) -> np.ndarray:
        """A frame's picture with the changes drawn, as frame `place` of its clip."""
        with _naming(self.source, video, frame):
            image = self.source.image(video, frame)
            if image.shape[:2] != self.size:
                raise DataError(
                    [
                        f"image is {image.shape[:2]} but the first is {self.size} "
                        "(height, width); make them one size with "
                        "resize_frames(source, size)"
                    ]
                )
            return image if drawn is None else drawn.image(image, place)

    def label(self, video: int, frame: int, drawn: Transform | None) -> np.ndarray:
        """A frame's label with the changes drawn; `IGNORE` where it has none."""
        with _naming(self.source, video, frame):
            if isinstance(self.source, Cached):
                label = self.source.label_resized(video, frame)
            else:
                label = self.source.label(video, frame)
            if label is None:
                return np.full(self.size, IGNORE, np.uint8)
            label = resize_label(label, self.size)
            return label if drawn is None else drawn.label(label)


class BufferPool:
    """Memory for batches, given out again once the last array over it is gone.

    Fresh arrays of this size cost more than filling them (the system maps every page
    anew). Reusing them by turns would not do: a device array on the CPU may share the
    memory of the NumPy array it came from, however it was made, and would change under
    its owner. So a batch's arrays are views of a `lease`, which no view outlives, and
    the end of the lease is what puts the memory back.
    """

    def __init__(self, layout: dict[str, tuple[tuple[int, ...], np.dtype]]):
        self._layout = layout
        self._free: deque[np.ndarray] = deque()
        self._offsets: dict[str, int] = {}
        self._bytes = 0
        for name, (shape, kind) in layout.items():
            self._offsets[name] = self._bytes
            size = int(np.prod(shape)) * kind.itemsize
            self._bytes += -(-size // _ALIGNMENT) * _ALIGNMENT

    def take(self) -> Batch:
        """Arrays of the layout with undefined content, each aligned to 64 bytes."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._bytes + _ALIGNMENT, np.uint8)
        # The detour by a memoryview ends NumPy's chain of bases here, so that views of
        # views hold the lease and not the memory behind it.
        lease = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(lease, self._free.append, memory).atexit = False
        start = -memory.ctypes.data % _ALIGNMENT
        batch = {}
        for name, (shape, kind) in self._layout.items():
            first = start + self._offsets[name]
            last = first + int(np.prod(shape)) * kind.itemsize
            batch[name] = lease[first:last].view(kind).reshape(shape)
        return batch


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` samples in an epoch, a permutation, int64 `[count]`."""
    order = generator(seed, epoch | _ORDER_STREAM).permutation(count)
    order.setflags(write=False)
    return order


def generator(seed: int, number: int) -> np.random.Generator:
    """The generator of one numbered draw of a seed; both in 0..2**64-1."""
    key = np.array([seed, number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@contextlib.contextmanager
def _naming(source: FrameSource, video: int, frame: int) -> Iterator[None]:
    """Adds the names of video and frame to what goes wrong inside."""
    info = source.videos[video]
    name = f"video {info.name}, frame {info.frames[frame]}"
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {line}" for line in error.faults) from error
    except Exception as error:
        raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
