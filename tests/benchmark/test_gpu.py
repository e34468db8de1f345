"""The GPU benchmark: parts are measured once, saved, resumed and reported."""

import json
from functools import partial

import pytest

from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import gpu, gpu_checks, live, training
from dmnet_jax.benchmark.live_case import LiveCase
from dmnet_jax.config import Config, ModelConfig
from tests.support import tiny_run

CHECKS = {
    "device": "a device",
    "versions": {"jax": "1.0"},
    **{
        name: {"labels": 1e-3, "admitted": 0.0}
        for name in ("stream", "rounded", "bfloat16")
    },
    "golden": {"dmnet_btnlstm": 1e-6},
}
TURN = {"end_to_end": [0.002] * 3, "device": [0.001] * 3}


def live_row(case, contestant: str) -> dict:
    return {
        **vars(case),
        "contestant": contestant,
        "turns": [TURN],
        "compile_s": 1.0,
        "first_s": 0.1,
        "allocator": "x",
        "memory_bytes": 2**30,
        "gpu_bytes": 2**20,
        "parameters": 10**6,
        "operations": 10**6,
        "bytes": 1000,
        "peak": 1e9,
        "bandwidth": 1e9,
        "differences": {"labels": 0.0, "confidence": 0.0, "distance": 0.0},
    }


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    calls: list[str] = []

    def measure_live(cases, peers, folder, rounds, concurrent):
        calls.append("live")
        assert concurrent and cases[0].in_flight == 1
        rows = [live_row(case, "jax") for case in cases]
        return rows + [live_row(cases[0], kind) for kind in peers]

    def measure_training(case, folder, rounds, peers):
        calls.append("training")
        return [{**vars(case), "network": "DMNet", "failed": "no memory"}]

    def checks(size, folder):
        calls.append("checks")
        return CHECKS

    monkeypatch.setattr(live, "measure", measure_live)
    monkeypatch.setattr(training, "measure", measure_training)
    monkeypatch.setattr(gpu, "checks", checks)
    monkeypatch.setattr(gpu, "find_spec", lambda name: True)
    return calls


def test_all_parts_are_written_and_not_measured_again(measured, tmp_path, capsys):
    flags = ["gpu", "--out", str(tmp_path), "--size", "64x96", "--batch", "2"]
    assert command.main(flags) == 1  # a training row failed, and this is reported
    assert measured == ["live", "training", "training", "checks"]
    text = (tmp_path / "gpu.md").read_text()
    for piece in ("| stream", "1.0e-03", "torch.compile", "64 ", "no memory", "1 MiB"):
        assert piece in text, piece
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert set(report) >= {"machine", "command", "checks", "live", "training"}
    command.main(flags)
    assert len(measured) == 4


def test_stopped_run_resumes_with_the_missing_parts(measured, tmp_path, capsys):
    flags = ["gpu", "--out", str(tmp_path), "--size", "64x96"]
    command.main([*flags, "--minutes", "1e-9"])
    assert measured == []
    assert "live: not started" in capsys.readouterr().out
    command.main([*flags, "--no-peers"])
    rows = json.loads((tmp_path / "gpu.json").read_text())["live"]
    assert {row["contestant"] for row in rows} == {"jax"}


@pytest.mark.parametrize("content", ["", "[]", '{"machine": 1}', "[" * 100_000])
def test_damaged_report_is_one_error_line(measured, tmp_path, content):
    (tmp_path / "gpu.json").write_text(content)
    with pytest.raises(SystemExit, match="gpu.json is damaged; remove it"):
        command.main(["gpu", "--out", str(tmp_path)])


def test_results_of_two_machines_are_not_mixed(measured, tmp_path):
    saved = {"machine": {"cpu": "another"}}
    (tmp_path / "gpu.json").write_text(json.dumps(saved))
    with pytest.raises(SystemExit, match="on another machine"):
        command.main(["gpu", "--out", str(tmp_path)])


def test_checks_pass_on_this_device(tmp_path, monkeypatch):
    # The authors' outputs are tested elsewhere; here they would cost a minute.
    monkeypatch.setattr(gpu_checks, "GOLDEN", tmp_path)
    random_config = partial(Config, model=ModelConfig(pretrained="none"))
    monkeypatch.setattr(gpu_checks, "Config", random_config)
    with tiny_run.shallow():
        result, _ = gpu_checks.prepare(LiveCase((64, 96)), tmp_path, "jax checks")
    assert result["stream"] == {"labels": 0.0, "admitted": 0.0}
    assert result["rounded"]["labels"] < 1e-2
    # The classes of an untrained network have nearly equal scores everywhere.
    assert result["bfloat16"]["labels"] < 0.5
    assert "golden" not in result


@pytest.mark.parametrize("flag", ["--seconds", "--minutes"])
@pytest.mark.parametrize("value", ["nan", "inf", "0"])
def test_invalid_times_are_refused(tmp_path, capsys, flag, value):
    with pytest.raises(SystemExit) as error:
        gpu.main(["--out", str(tmp_path), flag, value])
    assert error.value.code == 2 and "must be positive" in capsys.readouterr().err
