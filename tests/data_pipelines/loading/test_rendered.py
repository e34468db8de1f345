"""The endless stream: batches are pure functions of seed and step."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.corruption import Corruption
from data_pipelines.loading import rendered as module
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.sources.rendered import RenderedVideos, part_label
from data_pipelines.synthetic.render import Frame

SIZE = (64, 80)


@pytest.fixture(scope="module")
def stream() -> SceneStream:
    videos = RenderedVideos(0, 2, 3, SIZE)
    spec, augment = ClipSpec(1, 1), Augment(photometric=0.5)
    return SceneStream(videos, spec, 4, 0, SIZE, augment, hold=4, workers=0)


def same(one, other) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_workers_and_resuming_change_nothing(stream: SceneStream) -> None:
    alone = list(stream.iterate(0, 3))
    together = list(dataclasses.replace(stream, workers=2).iterate(1, 3))
    for one, other in zip(alone[1:], together, strict=True):
        same(one, other)
    same(stream.batch(2), alone[2])


def test_a_batch_has_the_arrays_of_a_clip_loader(stream: SceneStream) -> None:
    batch = stream.batch(0)
    assert batch["frames"].shape == (4, 2, *SIZE, 3)
    assert batch["past"].shape == (4, 1, *SIZE, 3)
    assert batch["label"].shape == (4, *SIZE) and batch["label"].dtype == np.uint8
    assert batch["frames_mask"].all() and batch["past_mask"].all()
    assert batch["label"].max() <= 3


def test_rows_change_scenes_at_different_steps(stream: SceneStream) -> None:
    scenes = np.array([[stream.row(s, r)["video"] for r in range(4)] for s in range(5)])
    changed = np.diff(scenes, axis=0) != 0
    assert changed.sum(1).tolist() == [1, 1, 1, 1]
    assert len(np.unique(scenes)) == 8


def test_a_batch_names_its_scenes(stream: SceneStream) -> None:
    numbers = stream.batch(3)["video"]
    names = [stream.video_name(int(number)) for number in numbers]
    assert names == [f"scene {number}" for number in numbers]


def test_a_row_keeps_only_its_current_scene(
    stream: SceneStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []
    real = module.make_varied_scene

    def record(seed: int, number: int, *more):
        numbers.append(number)
        return real(seed, number, *more)

    monkeypatch.setattr(module, "_scenes", {})
    monkeypatch.setattr(module, "make_varied_scene", record)
    for step in range(5):
        stream.batch(step)
    # Four rows start with one scene each and change scenes four times in five steps.
    assert len(numbers) == len(set(numbers)) == 8
    assert len(module._scenes) == 4


def test_processes_share_a_batch(stream: SceneStream) -> None:
    whole = stream.batch(1)
    halves = [
        dataclasses.replace(stream, process_index=k, process_count=2).batch(1)
        for k in range(2)
    ]
    same(whole, {n: np.concatenate([h[n] for h in halves]) for n in whole})


def test_every_frame_of_a_sequence_is_labeled(stream: SceneStream) -> None:
    spec = ClipSpec(1, 0, score_all=True)
    scored = dataclasses.replace(stream, spec=spec, batch_size=2)
    assert scored.batch(0)["label"].shape == (2, 2, *SIZE)


def test_only_frames_of_sequences_are_corrupted(stream: SceneStream) -> None:
    spec = ClipSpec(3, 0, score_all=True)
    plain = dataclasses.replace(stream, spec=spec, batch_size=2)
    always = dataclasses.replace(plain, corruption=Corruption(1.0, ("glare",)))
    clean, corrupted = plain.batch(1), always.batch(1)
    changed = (clean["frames"] != corrupted["frames"]).any((2, 3, 4))
    assert changed.any(1).all() and not changed[:, 0].any()
    same({**clean, "frames": 0}, {**corrupted, "frames": 0})
    same(corrupted, always.batch(1))


def test_validation_scenes_are_not_training_scenes(stream: SceneStream) -> None:
    videos = RenderedVideos(0, 2, 3, SIZE)
    assert [video.name for video in videos.videos] == ["scene0", "scene1"]
    assert videos.image(0, 1).shape == (*SIZE, 3)
    assert (videos.image(0, 1) != videos.image(1, 1)).any()
    label = videos.label(0, 1)
    assert label is not None and label.shape == SIZE
    assert (stream.batch(0)["frames"][0, -1] != videos.image(0, 0)).any()


def test_part_label_merges_instruments() -> None:
    parts = np.zeros((2, 2, 3), np.uint8)
    parts[0, 0] = 10, 20, 0
    parts[1, 1] = 30, 0, 10
    frame = Frame(np.zeros((2, 3, 3), np.uint8), parts, np.zeros((2, 3), np.uint8))
    np.testing.assert_array_equal(part_label(frame), [[1, 2, 0], [3, 0, 1]])


TRAINER = """
import multiprocessing, sys, time
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.sources.rendered import RenderedVideos, part_label
from data_pipelines.sources.rendered import RenderedVideos

if __name__ == "__main__":
    videos = RenderedVideos(0, 1, 1, (32, 32))
    stream = SceneStream(videos, ClipSpec(0, 0), 1, 0, (32, 32), Augment(), workers=1)
    batches = stream.iterate(0, 100)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
"""


def test_workers_ignore_signals_and_exit_with_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "trainer.py")],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as trainer:
        assert trainer.stdout
        (worker,) = map(int, trainer.stdout.readline().split())
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker, number)
        time.sleep(0.5)
        os.kill(worker, 0)  # it is still running
        trainer.kill()
    deadline = time.monotonic() + 20
    while _is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(worker)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    # Without a process that reaps orphans, a finished one remains as a zombie.
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().split()[2] != "Z"
