"""The live benchmark: contestants, comparison and report; nothing is timed."""

import json
from typing import Any

import numpy as np
import pytest

from dmnet_jax import machine
from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import live, live_case, live_report
from dmnet_jax.benchmark.live_case import LiveCase

SMALL = {"labels": 0.0, "confidence": 1e-6, "distance": 1e-6, "admitted": 0.0}


class FakeWorker:
    """A worker that reports 2 ms per step for this project and 4 ms for peers."""

    turns: list[str] = []
    gpu_memory = 0
    platform = "cpu"
    differences = SMALL

    def __init__(self, kind, case, folder):
        if kind == "torch.compile":
            raise RuntimeError("torch.compile failed (see its output above)")
        self.kind = kind
        self.report: dict[str, Any] = {
            "compile_s": 1.0,
            "first_s": 0.1,
            "allocator": machine.SYSTEM,
            "versions": {kind: "1.0"},
        }
        if kind == "jax":
            self.report |= {
                "peak": 1e9,
                "bandwidth": 1e9,
                "bytes": 1000,
                "operations": 10**6,
                "parameters": 10**6,
                "platform": self.platform,
            }
        else:
            self.report["differences"] = dict(self.differences)
        if kind == "openvino":
            self.report["differences"]["labels"] = 0.5
        if kind == "export-bf16":
            self.report = {"skipped": "this processor has no bfloat16"}
        if kind == "export-int8":
            self.report["differences"] = SMALL | {"labels": 0.5}
            self.report["rounded"] = {"labels": 2e-3, "miou": 0.001}
            self.report["note"] = "int8 may be slower"

    def turn(self):
        self.turns.append(self.kind)
        seconds = [0.002 if self.kind == "jax" else 0.004] * 3
        return {"end_to_end": seconds, "device": seconds}

    def close(self):
        return 2**30

    def stop(self):
        pass


@pytest.fixture
def fake_workers(monkeypatch):
    monkeypatch.setattr(live, "Worker", FakeWorker)
    monkeypatch.setattr(
        live, "find_spec", lambda name: None if name == "onnxruntime" else 1
    )
    monkeypatch.setattr(FakeWorker, "turns", [])


def test_contestants_take_turns_and_failures_are_rows(fake_workers, capsys, tmp_path):
    flags = ["--sizes", "64x96", "--rounds", "2", "--peers", "--out", str(tmp_path)]
    assert command.main([*flags, "--streams", "1", "2"]) == 1
    printed = capsys.readouterr()
    contestants = ["jax", "jax", "torch", "authors", "export", "export-int8"]
    assert FakeWorker.turns == contestants + contestants[::-1]
    assert "not timed: its outputs differ (labels by 5.0e-01)" in printed.out
    assert "0.50 [0.50..0.50]" in printed.out and "500.0" in printed.out
    assert "onnxruntime not installed" in printed.out
    # Peers of reduced precision are always timed; their differences are reported.
    (rounded,) = (line for line in printed.out.splitlines() if "2.0e-03" in line)
    assert "int8" in rounded and "+0.0010" in rounded
    assert "Note: int8 may be slower." in printed.out
    assert printed.out.count("skipped: this processor has no bfloat16") == 2
    # A peer that is not installed is no error; the two other failures are.
    error = printed.err.splitlines()[-1]
    assert "torch.compile failed" in error and "onnx" not in error
    assert "skipped" not in error
    assert "preload jemalloc" in printed.out
    assert (tmp_path / "live.md").read_text() == printed.out
    rows = json.loads((tmp_path / "live.json").read_text())["rows"]
    assert [row["contestant"] for row in rows[:3]] == ["jax", "jax", "torch"]
    assert [row["streams"] for row in rows[:3]] == [1, 2, 1]


def test_peers_can_be_chosen(fake_workers, capsys):
    flags = ["--sizes", "64x96", "--rounds", "1", "--peers", "export", "export-int8"]
    assert command.main(flags) == 0
    assert FakeWorker.turns == ["jax", "export", "export-int8"]
    assert "PyTorch eager" not in capsys.readouterr().out


def test_tolerances_are_larger_on_a_gpu(fake_workers, capsys, monkeypatch):
    monkeypatch.setattr(FakeWorker, "differences", SMALL | {"distance": 1e-3})
    flags = ["--sizes", "64x96", "--rounds", "1", "--peers"]
    for platform, rejected in (("cpu", 4), ("gpu", 1)):
        monkeypatch.setattr(FakeWorker, "platform", platform)
        assert command.main(flags) == 1
        assert capsys.readouterr().out.count("not timed: its outputs") == rejected * 2


def test_reference_is_always_measured(fake_workers, capsys):
    flags = ["--streams", "4", "--dtypes", "bfloat16", "--rounds", "1"]
    assert command.main(flags) == 0
    assert FakeWorker.turns == ["jax", "jax"]
    assert "4 streams, 1 in flight: 1.00 M parameters" in capsys.readouterr().out


def test_report_compares_a_step_with_its_lower_bound():
    turns = [{"end_to_end": [0.002], "device": [0.001]}]
    row = {**vars(LiveCase((64, 96))), "turns": turns, "parameters": 0}
    row |= {"operations": 10**6, "peak": 1e9, "bytes": 100, "bandwidth": 1e9}
    assert "2.00x the larger" in live_report._lower_bound(row)


def test_checked_frames_show_all_scenes_and_timed_scenes_repeat():
    case = LiveCase((64, 96), streams=2)
    images = live_case.scenes(case)
    assert images.shape == (4, 2, 64, 96, 3) and images.dtype == np.uint8
    scenes = [live_case.checked_scene(k) for k in range(live_case.CHECKED_FRAMES)]
    assert set(scenes[: live_case.FILL_FRAMES]) == set(range(4))
    next_frame = live_case.frame_source(case)
    frames = [next_frame() for _ in range(17)]
    assert all((frame == images[0]).all() for frame in frames[:16])
    assert (frames[16] == images[1]).all()


@pytest.mark.parametrize("in_flight", [1, 3])
def test_frames_in_flight_are_read_in_order(in_flight):
    items, read = iter(range(9)), []
    call = live_case.pipeline(lambda: next(items), read.append, in_flight)
    for sent in range(1, 6):
        call()
        assert read == list(range(max(0, sent - in_flight + 1)))


def test_differences_are_detected():
    frames = live_case.CHECKED_FRAMES
    rng = np.random.default_rng(0)
    outputs = {
        "labels": rng.integers(0, 8, (frames, 1, 4, 4), np.uint8),
        "confidence": rng.uniform(-2, -1, (frames, 1)),
        "distance": rng.uniform(1, 2, (frames, 1)),
        "admitted": rng.integers(0, 2, (frames, 1)).astype(bool),
    }
    assert set(live_case.differences(outputs, outputs).values()) == {0}
    other = {name: np.array(value) for name, value in outputs.items()}
    other["labels"][-1] += 1
    other["admitted"][3] ^= True
    result = live_case.differences(other, outputs)
    assert result["labels"] == pytest.approx(1 / (frames - live_case.FILL_FRAMES))
    assert result["admitted"] == pytest.approx(1 / frames)
    other["distance"][2] = np.nan
    result = live_case.differences(other, outputs)
    assert not result["distance"] <= live.TOLERANCE["distance"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sizes", "100x64"], "multiples of 32"),
        (["--rounds", "0"], "at least 1"),
        (["--streams", "0"], "at least 1"),
        (["--in-flight", "0"], "at least 1"),
        (["--dtypes", "float16"], "bfloat16"),
        (["nothing"], "unrecognized options: nothing"),
        (["--peers", "theano"], "invalid choice 'theano'"),
        (["--peers"], 'pip install -e ".[peers]"'),
    ],
)
def test_invalid_flags_are_one_error_line(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        command.main(flags)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_help_states_the_intended_use(capsys):
    with pytest.raises(SystemExit) as error:
        command.main(["--help"])
    output = capsys.readouterr().out
    assert error.value.code == 0
    assert output.count("For research use; not a medical device.") == 1
    assert "training --help" in output


def test_processes_share_an_allocator(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/lib/libother.so")
    assert machine.environment()["LD_PRELOAD"] == "/lib/libother.so"
    monkeypatch.delenv("LD_PRELOAD")
    assert machine.environment().get("LD_PRELOAD") == machine.find_tcmalloc()
    assert machine.allocator()
