"""How a session handles faults of cameras; no network is needed."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dmnet_jax.streaming import PRETRAINED, PRETRAINED_FAST, Policy, Session
from dmnet_jax.streaming.latency import KEPT, Latency
from dmnet_jax.streaming.program import Interface, Labeled, Program

SIZE = (32, 64)
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (40, *SIZE, 3), np.uint8)


class Recorder:
    """A program whose memory counts the frames since the last reset."""

    def __init__(self, seconds=0.0):
        self.resets = []
        self.seconds = seconds
        self.confidence = -0.1
        self.program = Program(Interface(SIZE, 1, 3, SIZE), self.init, self.call)

    def init(self, key):
        return 0

    def call(self, memory, frames, active, reset):
        time.sleep(self.seconds)
        self.resets.append(int(reset[0]))
        memory = 1 if reset[0] else memory + 1
        labels = np.full((1, *SIZE), frames[0, 0, 0, 0] % 3, np.uint8)
        score = np.float32([self.confidence])
        return memory, Labeled(labels, None, score, score, np.ones(1, bool))

    def session(self, **options):
        session = Session(self.program, **options)
        self.resets.clear()  # the frames of the warm-up
        return session


def refused(kind):
    frame = FRAMES[1]
    return {
        "size": frame[:, :32],
        "channels": frame[..., :1],
        "gray": frame[..., 0],
        "dtype": frame.astype(np.float32),
        "nan": np.full(frame.shape, np.nan, np.float32),
        "none": None,
        "list": frame.tolist(),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["size", "channels", "gray", "dtype", "nan", "none", "list"]
)
def test_invalid_frames_are_refused(kind):
    recorder = Recorder()
    session = recorder.session(policy=Policy(other_sizes="refuse"))
    assert session.step(FRAMES[0]).status == "ok"
    result = session.step(refused(kind))
    assert result.status == "refused" and "must be" in result.reason
    assert result.labels is None and not result.admitted
    assert session.step(FRAMES[1]).status == "ok"
    assert len(recorder.resets) == 2, "a refused frame must not reach the program"
    assert session.stats()["refused"] == 1 and session.stats()["frames"] == 3


@pytest.mark.parametrize("position", [0, 1, 4])
@pytest.mark.parametrize("level", [0, 90, 255])
def test_blank_frames_are_never_remembered(position, level):
    recorder = Recorder()
    session = recorder.session()
    noise = RNG.integers(-2, 3, (*SIZE, 3))
    blank = np.clip(level + noise, 0, 255).astype(np.uint8)
    frames = [*FRAMES[:5]]
    frames.insert(position, blank)
    results = [session.step(frame) for frame in frames]
    assert [r.status for r in results].index("blank") == position
    assert results[position].labels is None
    assert sum(r.status == "ok" for r in results) == len(recorder.resets) == 5


def test_frozen_frames_are_not_reported_as_new():
    session = Recorder().session()
    statuses = [session.step(FRAMES[i]).status for i in (0, 0, 0, 1, 0)]
    assert statuses == ["ok", "frozen", "frozen", "ok", "ok"]
    assert session.stats()["frozen"] == 2
    everything = Recorder().session(policy=Policy(skip_frozen=False, skip_blank=False))
    repeated = [FRAMES[0], FRAMES[0], np.zeros_like(FRAMES[0])]
    assert [everything.step(f).status for f in repeated] == ["ok"] * 3


def test_late_and_lost_frames_are_counted():
    session = Recorder().session(policy=Policy(period=0.04))
    times = [0.0, 0.04, 0.16, 0.12, 0.16, 0.20, float("nan")]
    statuses = [session.step(FRAMES[i], t).status for i, t in enumerate(times)]
    assert statuses == ["ok", "ok", "ok", "late", "late", "ok", "refused"]
    stats = session.stats()
    assert (stats["lost"], stats["late"], stats["refused"]) == (2, 2, 1)


@pytest.mark.parametrize(
    ("on_gap", "code"), [("keep", 0), ("reset-local", 1), ("reset-all", 2)]
)
def test_gap_resets_by_policy(on_gap, code):
    recorder = Recorder()
    session = recorder.session(policy=Policy(max_gap=0.5, on_gap=on_gap))
    results = [session.step(FRAMES[i], t) for i, t in enumerate((0, 0.4, 1.0, 1.1))]
    assert recorder.resets == [2, 0, code, 0]
    assert results[2].forgot == on_gap and "gap of 0.6" in results[2].reason
    assert session.stats()["gaps"] == 1


def test_frozen_camera_that_moves_again_is_a_gap():
    recorder = Recorder()
    session = recorder.session(policy=Policy(max_gap=0.5))
    for i, t in ((0, 0.0), (0, 0.3), (0, 0.6), (1, 0.9)):
        session.step(FRAMES[i], t)
    assert recorder.resets == [2, 1]


def test_scene_cut_resets_by_policy():
    recorder = Recorder()
    session = recorder.session(policy=Policy(scene_cut=40, on_cut="reset-all"))
    scene = FRAMES[0] // 2
    for frame in (scene, scene + 3, 255 - scene, 254 - scene):
        result = session.step(frame)
    assert recorder.resets == [2, 0, 2, 0] and result.forgot == "keep"
    assert session.stats()["scene_cuts"] == 1


def test_requested_reset_waits_for_a_usable_frame():
    recorder = Recorder()
    session = recorder.session()
    session.step(FRAMES[0])
    session.reset("reset-local")
    session.step(np.zeros_like(FRAMES[0]))
    session.step(FRAMES[1])
    session.reset()
    assert session.step(FRAMES[1]).status == "ok", (
        "the frame must be the first of a new video"
    )
    assert recorder.resets == [2, 1, 2]


def test_non_finite_output_is_withheld():
    recorder = Recorder()
    session = recorder.session()
    recorder.confidence = float("nan")
    result = session.step(FRAMES[0])
    assert result.status == "suspect" and result.labels is None
    recorder.confidence = -0.2
    assert session.step(FRAMES[1]).status == "ok"
    assert session.stats()["suspect"] == 1


def test_clock_is_rebased_after_one_wrong_timestamp():
    session = Recorder().session(policy=Policy(period=0.04, max_gap=1.0))
    times = [0.04 * i for i in range(40)]
    times[10] = 1e9
    statuses = [session.step(FRAMES[i], t).status for i, t in enumerate(times)]
    assert statuses == ["ok"] * 11 + ["late"] * 2 + ["ok"] * 27
    stats = session.stats()
    assert stats["clock_rebased"] == 1 and stats["late"] == 2
    assert stats["lost"] == 0, (
        "gaps counted because of the wrong timestamp must be removed"
    )


def test_clock_set_back_is_rebased_and_a_single_late_frame_is_not():
    session = Recorder().session()
    times = [5.0, 5.1, 1.0, 1.1, 1.2, 1.3, 1.25, 1.4]
    statuses = [session.step(FRAMES[i], t).status for i, t in enumerate(times)]
    assert statuses == ["ok", "ok", "late", "late", "ok", "ok", "late", "ok"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"other_sizes": "resize"},
        {"max_gap": float("nan")},
        {"max_gap": -1.0},
        {"scene_cut": float("nan")},
        {"scene_cut": "40"},
        {"period": 0},
        {"period": True},
        {"on_gap": "reset"},
        {"on_cut": None},
        {"skip_blank": "no"},
    ],
)
def test_options_are_checked_on_construction(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*must be"):
        Policy(**wrong)


@pytest.mark.parametrize("timestamp", ["12:00", float("inf"), True, [1.0], 1j])
def test_invalid_timestamps_are_refused(timestamp):
    session = Recorder().session()
    result = session.step(FRAMES[0], timestamp)
    assert result.status == "refused" and "must be a finite number" in result.reason
    assert session.step(FRAMES[0], 1.0).status == "ok"


def test_session_options_are_checked():
    with pytest.raises(ValueError, match="deadline is nan"):
        Recorder().session(deadline=float("nan"))
    with pytest.raises(ValueError, match="forget is 'window'"):
        Recorder().session().reset("window")


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 4), (16_000, 16_000, 3)])
def test_frames_that_would_need_a_huge_canvas_are_refused(size):
    frame = np.broadcast_to(np.zeros(3, np.uint8), (*size[:2], 3))  # takes no memory
    recorder = Recorder()
    result = recorder.session().step(frame)
    assert result.status == "refused" and f"{size[1]}x{size[0]}" in result.reason
    assert not recorder.resets


def test_threads_share_a_session():
    recorder = Recorder(seconds=0.001)
    inside, most = [], []
    call = recorder.program._call

    def counted(*inputs):
        inside.append(1)
        most.append(len(inside))
        try:
            return call(*inputs)
        finally:
            inside.pop()

    recorder.program._call = counted
    session = recorder.session()

    def steps(thread):
        rng = np.random.default_rng(thread)
        for _ in range(8):
            frame = rng.integers(0, 256, (*SIZE, 3), np.uint8)
            assert session.step(frame).status == "ok"
            session.stats()
            session.reset("reset-local")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(steps, range(4)))
    assert max(most) == 1 and session.stats()["frames"] == 32


def test_missed_deadlines_are_counted():
    recorder = Recorder()
    session = recorder.session(deadline=0.05)
    missed = []
    for i, seconds in enumerate((0.0, 0.08, 0.0, 0.08)):
        recorder.seconds = seconds
        missed.append(session.step(FRAMES[i]).missed_deadline)
    assert missed == [False, True, False, True]
    latency = session.stats()["latency"]
    assert latency["deadline_misses"] == 2 and latency["steps"] == 4
    assert latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"]
    assert latency["max_ms"] >= 80


def test_warm_up_is_not_counted_as_latency():
    session = Recorder(seconds=0.05).session()
    assert session.stats()["latency"]["steps"] == 0
    assert session.stats()["latency"]["p50_ms"] is None


def test_latency_covers_the_last_steps_and_the_overall_maximum():
    latency = Latency()
    latency.add(9.0)
    for _ in range(KEPT):
        latency.add(0.001)
    summary = latency.summary()
    assert summary["p99_ms"] == pytest.approx(1.0)
    assert summary["max_ms"] == pytest.approx(9000) and summary["steps"] == KEPT + 1


@pytest.mark.parametrize("fast, name", [(False, PRETRAINED), (True, PRETRAINED_FAST)])
def test_pretrained_loads_the_shipped_network(monkeypatch, fast, name):
    requested = {}
    monkeypatch.setattr(
        Session,
        "from_checkpoint",
        classmethod(lambda cls, run, **options: requested.update(options, run=run)),
    )
    Session.pretrained(fast=fast, size=(64, 96))
    assert requested == {"run": name, "size": (64, 96), "label_size": None}


def test_from_artefact_is_a_deprecated_alias(monkeypatch):
    program = Recorder().program
    where = "dmnet_jax.streaming.session.load_artifact"
    monkeypatch.setattr(where, {"model.jax": program}.get)
    with pytest.warns(DeprecationWarning, match="use Session.from_artifact"):
        session = Session.from_artefact("model.jax", seed=1)
    assert session.program is program


def test_session_is_for_one_stream():
    recorder = Recorder()
    program = Program(Interface(SIZE, 2, 3, SIZE), recorder.init, recorder.call)
    with pytest.raises(ValueError, match="streams=1"):
        Session(program)
