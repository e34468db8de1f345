"""The live benchmark: what it measures, refuses and compares; nothing is timed."""

import json
from typing import Any

import numpy as np
import pytest

from dmnet_jax import machine
from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import live, live_case, live_report
from dmnet_jax.benchmark.live_case import LiveCase

SAME = {"labels": 0.0, "confidence": 1e-6, "distance": 1e-6, "admitted": 0.0}


class Quick:
    """A fake process: 2 ms for this project, 4 ms for others."""

    order: list[str] = []
    gpu_memory = 0
    platform = "cpu"
    same = SAME

    def __init__(self, kind, case, folder):
        if kind == "torch.compile":
            raise RuntimeError("torch.compile failed (see above)")
        wrong = {"labels": 0.5} if kind == "openvino" else {}
        self.kind, ours = kind, {"peak": 1e9, "bandwidth": 1e9, "bytes": 1000}
        ours |= {"operations": 10**6, "parameters": 10**6}
        self.report: dict[str, Any] = {
            "compile_s": 1.0,
            "first_s": 0.1,
            "allocator": machine.SYSTEM,
        }
        ours["platform"] = self.platform
        self.report |= ours if kind == "jax" else {"differences": self.same | wrong}
        self.report["versions"] = {kind: "1.0"}
        if kind == "export-bf16":
            self.report = {"left_out": "left out: this processor has no bfloat16"}
        if kind == "export-int8":
            self.report["differences"] = SAME | {"labels": 0.5}
            self.report["rounded"] = {"labels": 2e-3, "miou": 0.001}
            self.report["note"] = "int8 may be slower"

    def turn(self):
        self.order.append(self.kind)
        spent = [0.002 if self.kind == "jax" else 0.004] * 3
        return {"end_to_end": spent, "device": spent}

    def close(self):
        return 2**30

    def stop(self):
        pass


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(live, "Worker", Quick)
    monkeypatch.setattr(
        live, "find_spec", lambda name: None if name == "onnxruntime" else 1
    )
    monkeypatch.setattr(Quick, "order", [])


def test_contestants_take_turns_and_failures_are_rows(quick, capsys, tmp_path):
    flags = ["--sizes", "64x96", "--rounds", "2", "--peers", "--out", str(tmp_path)]
    assert command.main([*flags, "--streams", "1", "2"]) == 1
    printed = capsys.readouterr()
    contestants = ["jax", "jax", "torch", "authors", "export", "export-int8"]
    assert Quick.order == contestants + contestants[::-1]
    assert "refused: its outputs differ (labels by 5.0e-01)" in printed.out
    assert "0.50 [0.50..0.50]" in printed.out and "500.0" in printed.out
    assert "onnxruntime not installed" in printed.out
    # Programs that round are not refused: the error is reported beside the time.
    (rounded,) = (x for x in printed.out.splitlines() if "2.0e-03" in x)
    assert "int8" in rounded and "+0.0010" in rounded
    assert "Note: int8 may be slower." in printed.out
    assert printed.out.count("left out: this processor has no bfloat16") == 2
    # A peer that is not installed is no error; the two other failures are.
    error = printed.err.splitlines()[-1]
    assert "torch.compile failed" in error and "onnx" not in error
    assert "left out" not in error
    assert "preload jemalloc" in printed.out
    assert (tmp_path / "live.md").read_text() == printed.out
    rows = json.loads((tmp_path / "live.json").read_text())["rows"]
    assert [row["contestant"] for row in rows[:3]] == ["jax", "jax", "torch"]
    assert [row["streams"] for row in rows[:3]] == [1, 2, 1]


def test_peers_can_be_chosen(quick, capsys):
    flags = ["--sizes", "64x96", "--rounds", "1", "--peers", "export", "export-int8"]
    assert command.main(flags) == 0
    assert Quick.order == ["jax", "export", "export-int8"]
    assert "PyTorch eager" not in capsys.readouterr().out


def test_a_gpu_may_round(quick, capsys, monkeypatch):
    monkeypatch.setattr(Quick, "same", SAME | {"distance": 1e-3})
    flags = ["--sizes", "64x96", "--rounds", "1", "--peers"]
    for platform, refused in (("cpu", 4), ("gpu", 1)):
        monkeypatch.setattr(Quick, "platform", platform)
        assert command.main(flags) == 1
        assert capsys.readouterr().out.count("refused: its outputs") == refused * 2


def test_reference_is_always_measured(quick, capsys):
    flags = ["--streams", "4", "--dtypes", "bfloat16", "--rounds", "1"]
    assert command.main(flags) == 0
    assert Quick.order == ["jax", "jax"]
    assert "4 streams, 1 in flight: 1.00 M parameters" in capsys.readouterr().out


def test_the_distance_to_the_floor():
    turns = [{"end_to_end": [0.002], "device": [0.001]}]
    row = {**vars(LiveCase((64, 96))), "turns": turns, "parameters": 0}
    row |= {"operations": 10**6, "peak": 1e9, "bytes": 100, "bandwidth": 1e9}
    assert "2.00x the larger" in live_report._limits(row)


def test_a_video_fills_the_memory_before_it_is_compared():
    case = LiveCase((64, 96), streams=2)
    pictures = live_case.scenes(case)
    assert pictures.shape == (4, 2, 64, 96, 3) and pictures.dtype == np.uint8
    scenes = [live_case.checked_scene(k) for k in range(live_case.CHECKED)]
    assert set(scenes[: live_case.FILLED]) == set(range(4))
    following = live_case.timed_frames(case)
    first = [following() for _ in range(17)]
    assert all((frame == pictures[0]).all() for frame in first[:16])
    assert (first[16] == pictures[1]).all()


@pytest.mark.parametrize("in_flight", [1, 3])
def test_frames_in_flight_are_read_in_order(in_flight):
    sent, read = iter(range(9)), []
    call = live_case.pipelined(lambda: next(sent), read.append, in_flight)
    for under_way in range(1, 6):
        call()
        assert read == list(range(max(0, under_way - in_flight + 1)))


def test_differences_are_detected():
    frames = live_case.CHECKED
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
    assert result["labels"] == pytest.approx(1 / (frames - live_case.FILLED))
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
def test_mistakes_are_one_error_line(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(live, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        command.main(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_states_its_limits(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    output = capsys.readouterr().out
    assert stopped.value.code == 0
    assert output.count("For research use; not a medical device.") == 1
    assert "training --help" in output


def test_processes_share_an_allocator(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/lib/libother.so")
    assert machine.environment()["LD_PRELOAD"] == "/lib/libother.so"
    monkeypatch.delenv("LD_PRELOAD")
    assert machine.environment().get("LD_PRELOAD") == machine.find_tcmalloc()
    assert machine.allocator()
