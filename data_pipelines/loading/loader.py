"""Loads batches of training clips; each is a pure function of seed and step.

The order of an epoch is a permutation drawn from (seed, epoch). The clip and the
augmentation of a sample are drawn from (seed, sample number), and samples are numbered
from the first step. Batches are therefore identical with any number of threads, and a
run resumes by requesting the next step. A batch may span two epochs: no sample is
dropped and every batch is full.
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
from data_pipelines.synthetic.fields import generator

Batch = dict[str, np.ndarray]
"""Arrays by name; see `ClipLoader.batch`."""

_ALIGNMENT = 64
# Separates the random numbers of epoch orders from those of samples.
_ORDER_STREAM = 1 << 63


class Batches(Protocol):
    """An endless sequence of batches of clips."""

    @property
    def source(self) -> FrameSource: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def batch(self, step: int) -> Batch: ...

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]: ...

    def video_name(self, video: int) -> str:
        """Returns the name of a video, given the value of `video` in a batch."""
        ...


class ClipLoader:
    """Loads batches of clips from a source.

    Args:
        source: the frames, all of one size; fastest is
            `cache_frames(resize_frames(...))`.
        spec: number of frames in a clip.
        batch_size: B, clips per step over all processes.
        seed: 0 <= seed < 2**63; determines order, clips and augmentation.
        augment: random augmentation of clips; None: none.
        corruption: corruption of frames after augmentation; None: none. `past` is never
            corrupted.
        threads: threads that prefetch batches in `iterate`; 0 disables prefetching.
        labeled_only: whether clips end only at labeled frames. Otherwise they end at
            any frame, and the label of an unlabeled frame is `IGNORE` everywhere.
        frame_step: clips end only at every `frame_step`-th frame of a video.
        process_index: index of this process, which loads B/P rows of the batch,
            starting at row `process_index * B/P`.
        process_count: P, number of processes that train together.

    Raises:
        ValueError: an argument is out of range, or B is not divisible by P.
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
                f"batch_size={batch_size} must be a positive multiple of "
                f"process_count={process_count}"
            )
        if not 0 <= process_index < process_count:
            raise ValueError(
                f"process_index={process_index}: must be in 0..{process_count - 1}"
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
        """Number of steps in which every sample is used at least once."""
        return -(-len(self.samples) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """Loads the b = B/P rows of this process of the batch of a step.

        Returns:
            New arrays:
                frames: uint8 `[b, T, H, W, 3]`, oldest first.
                frames_mask: bool `[b, T]`; where False, the image is not used.
                past: uint8 `[b, n, H, W, 3]`.
                past_mask: bool `[b, n]`; where False, the image is not used.
                label: uint8 `[b, H, W]` of the last of `frames`, or `[b, T, H, W]` of
                    all of them if `spec.score_all`.
                video: int32 `[b]`, index of the video in the source.
                frame: int32 `[b]`, index of the last of `frames` in the video.

        Raises:
            DataError: an image or mask is invalid; names video and frame.
            RuntimeError: the source raised another exception; names video and frame.
        """
        batch = BufferPool(self._layout()).take()
        for row in range(self.rows):
            self._fill(batch, step, row)
        return batch

    def iterate(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yields `batch(step)` for a range of steps, prefetched by threads.

        Memory is reused only when nothing references it: a batch, and any array or
        device array that shares its memory, stays valid for as long as it is
        referenced. Leaving the loop stops the threads; `contextlib.closing` does so
        immediately, even if the iterator is still referenced.

        Raises:
            DataError, RuntimeError: as for `batch`, when the invalid batch is due.
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
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        steps = iter(range(start_step, stop_step))
        # A variable that is not deleted would keep the memory of a batch from reuse.
        try:
            while True:
                while len(pending) < 2 and (step := next(steps, None)) is not None:
                    batch = self._pool.take()
                    futures = [
                        executor.submit(self._fill, batch, step, row)
                        for row in range(self.rows)
                    ]
                    pending.append((batch, futures))
                    del batch
                if not pending:
                    return
                batch, futures = pending.popleft()
                for future in futures:
                    future.result()
                del futures
                yield batch
                del batch
        finally:
            executor.shutdown(cancel_futures=True)

    def _layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns the shape and dtype of each array of a batch."""
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
        """Returns the name of the video with this index in the source."""
        return self.source.videos[video].name

    def draw(self, step: int, row: int) -> tuple[int, int, Clip, np.random.Generator]:
        """Draws the content of a row, without reading frames.

        Returns:
            (video, frame, clip, rng); the generator is used for augmentation.
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
        transform = None if self.augment is None else self.augment.draw(rng, self.size)
        for slot, index in enumerate((*clip.frames, *clip.past)):
            image = self.image(video, int(index), transform, slot)
            if slot < self.spec.length:
                batch["frames"][row, slot] = image
            else:
                batch["past"][row, slot - self.spec.length] = image
        if self.corruption is not None:
            frames = batch["frames"][row]
            where = self.corruption.draw(rng, len(frames)) & clip.frames_mask
            batch["frames"][row] = corrupt_clip(
                frames,
                where,
                rng,
                kinds=self.corruption.kinds,
                layers=self.corruption.layers,
            )
        if self.spec.score_all:
            for slot, index in enumerate(clip.frames):
                batch["label"][row, slot] = (
                    self.label(video, int(index), transform)
                    if clip.frames_mask[slot]
                    else IGNORE
                )
        else:
            batch["label"][row] = self.label(video, frame, transform)
        batch["frames_mask"][row] = clip.frames_mask
        batch["past_mask"][row] = clip.past_mask
        batch["video"][row], batch["frame"][row] = video, frame

    def image(
        self, video: int, frame: int, transform: Transform | None, index: int
    ) -> np.ndarray:
        """Reads an image and transforms it as the frame `index` of a clip."""
        with _add_frame_name(self.source, video, frame):
            image = self.source.image(video, frame)
            if image.shape[:2] != self.size:
                raise DataError(
                    [
                        f"image is {image.shape[:2]} but the first is {self.size} "
                        "(height, width); make them one size with "
                        "resize_frames(source, size)"
                    ]
                )
            return image if transform is None else transform.image(image, index)

    def label(self, video: int, frame: int, transform: Transform | None) -> np.ndarray:
        """Reads a label and transforms it; `IGNORE` everywhere if there is none."""
        with _add_frame_name(self.source, video, frame):
            if isinstance(self.source, Cached):
                label = self.source.label_resized(video, frame)
            else:
                label = self.source.label(video, frame)
            if label is None:
                return np.full(self.size, IGNORE, np.uint8)
            label = resize_label(label, self.size)
            return label if transform is None else transform.label(label)


class BufferPool:
    """Memory for batches that is reused when the last array that shares it is freed.

    Allocating arrays of this size for every batch costs more than filling them, because
    the system maps every page again. Buffers cannot simply alternate: a JAX array on
    the CPU may share the memory of the NumPy array that it was created from, and would
    change. The arrays of a batch are therefore views of a `lease` array. It is freed
    after all views, and its finalizer returns the memory to the pool.

    Args:
        layout: shape and dtype of each array of a batch.
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
        """Returns arrays with undefined content, each aligned to 64 bytes."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._bytes + _ALIGNMENT, np.uint8)
        # Through a memoryview, `lease` is the base of all views, including views of
        # views; otherwise NumPy would use `memory`, the owner of the data, as base.
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
    """Draws the order of `count` samples in an epoch, a permutation int64 `[count]`."""
    order = generator(seed, epoch | _ORDER_STREAM).permutation(count)
    order.setflags(write=False)
    return order


@contextlib.contextmanager
def _add_frame_name(source: FrameSource, video: int, frame: int) -> Iterator[None]:
    """Adds the names of video and frame to exceptions raised in the block."""
    info = source.videos[video]
    name = f"video {info.name}, frame {info.frames[frame]}"
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {line}" for line in error.faults) from error
    except Exception as error:
        raise RuntimeError(f"{name}: {type(error).__name__}: {error}") from error
