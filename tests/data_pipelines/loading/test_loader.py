"""Batches are pure functions of seed and step, safe to keep, and report errors."""

import contextlib
import threading
import time
from collections import deque

import jax
import numpy as np
import pytest

from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    DataError,
    Video,
    cache_frames,
    resize_label,
)
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.loader import BufferPool, ClipLoader

SIZE = (8, 12)


class Numbered:
    """Frames that contain their indices: red is the video, green the frame."""

    classes = (ClassInfo("background", (0, 0, 0)), ClassInfo("tool", (9, 9, 9)))
    videos = (
        Video("first", tuple(f"f{i}" for i in range(7))),
        Video("second", tuple(f"f{i}" for i in range(10)), frozenset({0, 4})),
    )

    def image(self, video, frame):
        image = np.random.default_rng([video, frame]).integers(
            0, 256, (*SIZE, 3), dtype=np.uint8
        )
        image[..., 0], image[..., 1] = video, frame
        return image

    def label(self, video, frame):
        if frame in self.videos[video].unlabeled:
            return None
        rng = np.random.default_rng([video, frame, 1])
        return rng.integers(0, 2, (2 * SIZE[0], 2 * SIZE[1]), dtype=np.uint8)


SPEC = ClipSpec(local_size=2, num_past=3)
SAMPLES = 7 + 8


def make(source=None, spec=SPEC, batch_size=4, seed=5, augment=None, **options):
    source = source or Numbered()
    return ClipLoader(
        source, spec, batch_size=batch_size, seed=seed, augment=augment, **options
    )


def copies(batches):
    return [{name: array.copy() for name, array in each.items()} for each in batches]


def equal(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def pairs_of(batch):
    return list(zip(batch["video"].tolist(), batch["frame"].tolist(), strict=True))


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("clip-loader")]


def test_shapes_and_types():
    batch = make().batch(0)
    layout = {name: (a.shape, a.dtype.name) for name, a in batch.items()}
    assert layout == {
        "frames": ((4, 3, *SIZE, 3), "uint8"),
        "frames_mask": ((4, 3), "bool"),
        "past": ((4, 3, *SIZE, 3), "uint8"),
        "past_mask": ((4, 3), "bool"),
        "label": ((4, *SIZE), "uint8"),
        "video": ((4,), "int32"),
        "frame": ((4,), "int32"),
    }


def test_pixels_are_those_of_causal_clips():
    source = Numbered()
    loader = make(source)
    for step in range(12):
        batch = loader.batch(step)
        for row in range(4):
            video, frame = int(batch["video"][row]), int(batch["frame"][row])
            window = [frame - 2, frame - 1, frame]
            assert batch["frames_mask"][row].tolist() == [i >= 0 for i in window]
            for place, index in enumerate(window):
                expected = source.image(video, max(index, 0))
                assert np.array_equal(batch["frames"][row, place], expected)
            past = batch["past"][row]
            used = batch["past_mask"][row]
            assert (past[..., 0] == video).all()
            assert used.sum() == min(3, frame)
            numbers = past[used][:, 0, 0, 1].tolist()
            assert numbers == sorted(set(numbers)) and max(numbers, default=-1) < frame
            for number, picture in zip(numbers, past[used], strict=True):
                assert np.array_equal(picture, source.image(video, number))
            label = resize_label(source.label(video, frame), SIZE)
            assert np.array_equal(batch["label"][row], label)


def test_an_epoch_is_a_permutation_and_batches_cross_its_edge():
    loader = make()
    assert loader.steps_per_epoch == 4
    seen = [pair for step in range(SAMPLES) for pair in pairs_of(loader.batch(step))]
    epochs = [tuple(seen[i : i + SAMPLES]) for i in range(0, len(seen), SAMPLES)]
    assert len(epochs) == 4 == len(set(epochs))
    for epoch in epochs:
        assert set(epoch) == set(loader.samples) and len(epoch) == SAMPLES
    assert (1, 0) not in loader.samples and (1, 4) not in loader.samples


@pytest.mark.parametrize("threads", [0, 1, 2, 4])
@pytest.mark.parametrize("is_cached", [True, False])
def test_bytes_do_not_depend_on_threads_or_start(threads, is_cached):
    augment = Augment(photometric=0.8)
    expected = [make(augment=augment, threads=0).batch(s) for s in range(11)]
    source = cache_frames(Numbered()) if is_cached else Numbered()
    loader = make(source, augment=augment, threads=threads)
    for start, stop in ((0, 11), (3, 9), (10, 11), (5, 5)):
        batches = copies(loader.iterate(start, stop))
        assert len(batches) == stop - start
        assert all(map(equal, batches, expected[start:stop]))


def past_of_the_last_frame(loader, step):
    batch = loader.batch(step)
    (row,) = np.flatnonzero((batch["video"] == 1) & (batch["frame"] == 9))
    return tuple(batch["past"][row, :, 0, 0, 1].tolist())


def test_seed_changes_order_and_clips():
    loaders = [make(seed=s, spec=ClipSpec(0, 3), batch_size=SAMPLES) for s in range(8)]
    orders = {tuple(loader.batch(0)["frame"].tolist()) for loader in loaders}
    assert len(orders) == 8
    assert len({past_of_the_last_frame(loader, 0) for loader in loaders}) > 4


def test_a_sample_is_another_clip_in_the_next_epoch():
    loader = make(spec=ClipSpec(0, 3), batch_size=SAMPLES)
    assert len({past_of_the_last_frame(loader, epoch) for epoch in range(6)}) > 3


@pytest.mark.parametrize("count", [2, 3, 6])
def test_processes_read_disjoint_rows_of_the_global_batch(count):
    options = {"batch_size": 6, "augment": Augment()}
    whole = make(**options)
    parts = [
        make(**options, process_index=i, process_count=count) for i in range(count)
    ]
    for step in range(5):
        batches = [part.batch(step) for part in parts]
        joined = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
        assert equal(joined, whole.batch(step))
        assert all(len(b["video"]) == 6 // count for b in batches)


def test_single_frame_networks():
    batch = make(spec=ClipSpec(0, 0)).batch(0)
    assert batch["frames"].shape == (4, 1, *SIZE, 3)
    assert batch["past"].shape == (4, 0, *SIZE, 3)
    assert batch["past_mask"].shape == (4, 0)
    assert batch["frames_mask"].all()


def test_a_batch_may_be_larger_than_an_epoch():
    batch = make(batch_size=40).batch(1)
    assert set(pairs_of(batch)) == set(make().samples)


def test_unlabeled_frames_are_ignored_everywhere():
    loader = make(labeled_only=False, batch_size=17, augment=Augment())
    batch = loader.batch(0)
    assert loader.steps_per_epoch == 1
    unlabeled = (batch["video"] == 1) & np.isin(batch["frame"], (0, 4))
    assert unlabeled.sum() == 2
    assert (batch["label"][unlabeled] == IGNORE).all()
    assert (batch["label"][~unlabeled] <= 1).all()


def test_label_and_image_get_the_same_geometry():
    class Painted(Numbered):
        def image(self, video, frame):
            label = resize_label(Numbered.label(self, video, 1), SIZE)
            return np.repeat(label[..., None] * np.uint8(255), 3, axis=-1)

        def label(self, video, frame):
            return Numbered.label(self, video, 1)

    batch = make(Painted(), augment=Augment(scale=(1, 1)), batch_size=64).batch(0)
    painted = batch["label"][:, None, ..., None] * np.uint8(255)
    assert (batch["frames"] == painted).all() and (batch["past"] == painted).all()
    # The labels of two videos, each flipped in four ways.
    assert len({label.tobytes() for label in batch["label"]}) == 8


class Poisoning(deque):
    """A free list that overwrites memory when it is returned."""

    returned = 0

    def append(self, memory):
        memory.fill(0xAB)
        self.returned += 1
        super().append(memory)


@pytest.mark.parametrize("threads", [0, 2])
def test_arrays_that_share_memory_with_a_batch_never_change(threads):
    loader = make(threads=threads)
    loader._pool._free = free = Poisoning()
    keep = {
        "device array": lambda b: jax.device_put(b["frames"]),
        "aliased": lambda b: jax.device_put(b["frames"], may_alias=True),
        "view of a view": lambda b: b["frames"][1:][0, :2],
        "memory": lambda b: memoryview(b["frames"]),
        "nothing": lambda b: None,
    }
    references = []
    for step, batch in enumerate(loader.iterate(0, 60)):
        assert equal(batch, loader.batch(step))
        name = list(keep)[step % len(keep)]
        value = keep[name](batch)
        if value is not None:
            references.append((name, value, np.array(value)))
        if step >= 20:
            references.pop(0)
        for kind, value, copy in references:
            assert np.array_equal(np.asarray(value), copy), kind
    assert free.returned > 30
    del batch, references, value, copy
    # JAX releases shared arrays at its next call.
    jax.device_put(0)
    assert free.returned == 60


def test_memory_is_reused_and_aligned():
    loader = make(threads=2)
    places = set()
    for batch in loader.iterate(0, 40):
        places.add(batch["frames"].ctypes.data)
        assert all(array.ctypes.data % 64 == 0 for array in batch.values())
    assert len(places) <= 4
    batches = list(make(threads=2).iterate(0, 8))
    assert len({batch["frames"].ctypes.data for batch in batches}) == 8


def test_fields_of_the_pool_do_not_overlap():
    layout = {
        "a": ((3, 5), np.dtype(np.uint8)),
        "none": ((0, 4), np.dtype(np.uint8)),
        "b": ((7,), np.dtype(np.int32)),
        "c": ((2, 2), np.dtype(np.bool_)),
    }
    batch = BufferPool(layout).take()
    for number, array in enumerate(batch.values()):
        array[...] = number
    for number, (name, array) in enumerate(batch.items()):
        assert array.shape == layout[name][0] and array.dtype == layout[name][1]
        assert (array == np.array(number, array.dtype)).all()


class Broken(Numbered):
    def __init__(self, error):
        self.error = error

    def image(self, video, frame):
        if (video, frame) == (1, 6):
            raise self.error
        return super().image(video, frame)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize(
    ("error", "kind"),
    [(DataError(["bad file"]), DataError), (KeyError("bad"), RuntimeError)],
)
def test_errors_name_video_and_frame_and_stop_the_threads(threads, error, kind):
    loader = make(Broken(error), threads=threads)
    with pytest.raises(kind, match=r"video second, frame f6: .*bad") as caught:
        for _ in loader.iterate(0, 50):
            pass
    assert caught.value.__cause__ is error
    assert not loader_threads()


def test_valid_batches_precede_the_invalid_one():
    loader = make(Broken(DataError(["bad"])), batch_size=1, spec=ClipSpec(0, 0))
    good = []
    with pytest.raises(DataError):
        for batch in loader.iterate(0, SAMPLES):
            good += pairs_of(batch)
    sound = make(batch_size=1, spec=ClipSpec(0, 0))
    order = [pairs_of(sound.batch(step))[0] for step in range(SAMPLES)]
    assert good == order[: order.index((1, 6))]


def test_leaving_early_stops_the_threads():
    loader = make(threads=3)
    with contextlib.closing(loader.iterate(0, 10**9)) as batches:
        for step, _ in enumerate(batches):
            assert loader_threads()
            if step == 3:
                break
    assert not loader_threads()
    for _ in loader.iterate(0, 10**9):
        break
    assert not loader_threads()


def test_threads_read_ahead_of_the_consumer():
    class Counting(Numbered):
        reads = 0

        def label(self, video, frame):
            self.reads += 1
            return super().label(video, frame)

    source = Counting()
    with contextlib.closing(make(source, threads=2).iterate(0, 100)) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while source.reads < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert source.reads == 8


def test_a_cached_source_is_read_once():
    class Counting(Numbered):
        def __init__(self):
            self.reads = []

        def image(self, video, frame):
            self.reads.append(("image", video, frame))
            return super().image(video, frame)

        def label(self, video, frame):
            self.reads.append(("label", video, frame))
            return super().label(video, frame)

    source = Counting()
    for _ in make(cache_frames(source), threads=0).iterate(0, 40):
        pass
    assert len(source.reads) == len(set(source.reads))
    labels = {read[1:] for read in source.reads if read[0] == "label"}
    assert labels == set(make().samples)


def test_frames_of_different_sizes_are_named():
    class Mixed(Numbered):
        def image(self, video, frame):
            image = super().image(video, frame)
            return image[:-1] if (video, frame) == (1, 9) else image

    with pytest.raises(DataError, match=r"video second, frame f9: .*resize_frames"):
        for _ in make(Mixed()).iterate(0, 4):
            pass


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 4, "process_count": 3}, "process_count=3"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
        ({"seed": -1}, "seed=-1"),
        ({"threads": -1}, "threads=-1"),
    ],
)
def test_impossible_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


def test_a_source_without_labels_is_refused():
    class Bare(Numbered):
        videos = (Video("only", ("a", "b"), frozenset({0, 1})),)

    with pytest.raises(DataError, match="no frames to train on"):
        make(Bare())
