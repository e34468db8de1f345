"""Complete runs of a toy network: stops, resumes, divergence, and progress."""

import importlib.util
import json
import logging
import os
import re
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines.loading.loader import ClipLoader
from dmnet_jax import evaluation
from dmnet_jax.checkpoint import Checkpoints, load_variables, read_metadata
from dmnet_jax.checkpoint.folder import list_steps, read_body
from dmnet_jax.evaluation import results
from dmnet_jax.training.loop import progress_text
from dmnet_jax.training.run_log import RunLog
from tests.support import toy
from tests.support.tiny_run import RECIPE, ROOT, RUN, train_arguments, write_videos


def main(folder: Path, name: str, *more: str) -> int:
    """Runs train.py in this process, on four devices, with the toy network."""
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with toy.use_toy_networks():
        return module.main([*train_arguments(folder, name), *more])


def everything(folder: Path, name: str) -> tuple:
    """Returns the digests of the newest state, the records and results of a run."""
    run = folder / name / RUN
    step = max(list_steps(run / "checkpoints"))
    load_variables(run, step)
    leaves = read_body(run / "checkpoints", step)["leaves"]
    scores = json.loads((run / "results.json").read_text())["protocols"]
    return leaves, (run / "metrics.jsonl").read_text(), scores


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(tmp_path_factory):
    """Compiles programs once for all runs of this file."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def make_folder(path: Path, recipe: str) -> Path:
    write_videos(path / "videos")
    (path / "tiny.py").write_text(recipe)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("toy"), RECIPE)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A recipe with one stage of four steps."""
    begin, end = RECIPE.index("StageConfig("), RECIPE.index("),\n        ),\n    )")
    stage = 'StageConfig("first", 2),\n            '
    recipe = RECIPE[:begin] + stage + RECIPE[end:]
    return make_folder(tmp_path_factory.mktemp("short"), recipe)


@pytest.fixture(scope="module")
def whole(folder):
    assert main(folder, "whole") == 0
    return everything(folder, "whole")


def interrupt(monkeypatch, owner, name: str, call: int) -> None:
    """Sends SIGTERM to this process at the given call of a function."""
    original, calls = getattr(owner, name), []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ClipLoader, "_fill", 5),  # before the second step, which validates
        (evaluation, "evaluate", 2),  # validation at the end of the second stage
        (evaluation, "calibrate", 3),  # of the finished network
        pytest.param(evaluation, "calibrate", 1, marks=pytest.mark.soak),
        pytest.param(evaluation, "evaluate", 4, marks=pytest.mark.soak),
        pytest.param(Checkpoints, "save", 6, marks=pytest.mark.soak),
    ],
)
def test_a_stop_anywhere_changes_nothing(
    folder, whole, monkeypatch, capsys, owner, name, call
):
    run = f"{name}{call}"
    with monkeypatch.context() as patch:
        interrupt(patch, owner, name, call)
        assert main(folder, run) == 143
    assert "stopped; run the same command again" in capsys.readouterr().out
    assert not (folder / run / RUN / "results.json").exists()
    assert main(folder, run) == 0
    assert "resuming at step" in capsys.readouterr().out
    assert everything(folder, run) == whole


class Killed(BaseException):
    """Stands for SIGKILL: leaves the same files."""


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (RunLog, "record", 3),
        pytest.param(RunLog, "sync", 4, marks=pytest.mark.soak),
        pytest.param(results, "write_results", 1, marks=pytest.mark.soak),
    ],
)
def test_a_kill_between_records_and_checkpoints_changes_nothing(
    folder, whole, monkeypatch, owner, name, call
):
    run, original, calls = f"{name}{call}", getattr(owner, name), []

    def killed(*arguments, **keywords):
        original(*arguments, **keywords)
        calls.append(1)
        if len(calls) == call:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            main(folder, run)
    assert main(folder, run) == 0
    assert everything(folder, run) == whole


def test_a_finished_run_stays_as_it_is(folder, whole, capsys):
    assert main(folder, "whole") == 0
    assert "finished; results" in capsys.readouterr().out
    assert everything(folder, "whole") == whole


def test_the_progress_line(short, capsys):
    assert main(short, "progress") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert re.fullmatch(
        r"step 1/4 · first · loss 1\.\d{4} · lr 1\.0e-03 · \|grad\| \d+\.\d\d · "
        r"admitted \d+% · data wait \d+% · \d+\.\d clips/s · \d+:\d\d left",
        line,
    )


def test_divergence_ends_the_run_and_saves_the_batch(short, capsys):
    """Uses a learning rate that makes the weights infinite in the first step."""
    with pytest.raises(SystemExit) as stopped:
        main(short, "diverged", "--optim.lr", "1e38", "--train.max-skipped", "3")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert re.match(r"error: step 4: .* not finite 3 steps in a row .*optim\.lr", error)
    run = short / "diverged" / RUN
    rows = [*map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]
    assert [row["skipped"] for row in rows if "skipped" in row] == [0, 1, 2]
    with np.load(run / "not_finite_step4_process0.npz", allow_pickle=False) as dump:
        assert dump["frames"].shape[0] == 4 and dump["frames"].dtype == np.uint8
        assert set(dump["video_name"]) == {"one"}
        assert {"label", "frame", "past", "frames_mask"} <= set(dump)


def test_tensorboard_gets_scalars_and_images(short, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")
    assert main(short, "board", "--train.tensorboard") == 0
    (events,) = (short / "board" / RUN / "tensorboard").iterdir()
    data = events.read_bytes()
    for name in (b"loss", b"lr", b"grad_norm", b"val_iou", b"waiting_for_data"):
        assert name in data
    assert "tensorflow" not in sys.modules
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(SystemExit):
        main(short, "no-board", "--train.tensorboard")
    assert 'pip install -e ".[tb]"' in capsys.readouterr().err


def test_resuming_warns_of_another_machine_and_rejects_other_data(
    short, capsys, caplog
):
    run = short / "moved" / RUN
    assert main(short, "moved") == 0
    step = max(list_steps(run / "checkpoints"))
    with Checkpoints(run) as checkpoints:
        about = read_metadata(run)
        state = {"variables": load_variables(run, step)[0]}
        about["versions"]["jax"], about["cores"] = "0.1", 96
        checkpoints.save(step + 1, state, metadata=about)
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        main(short, "moved")
    assert "jax was 0.1, now" in caplog.text and "CPU cores was 96, now" in caplog.text
    assert "not be bit-identical" in caplog.text
    with Checkpoints(run) as checkpoints:
        about["val_videos"] = ["three"]
        checkpoints.save(step + 2, state, metadata=about)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(short, "moved")
    assert "has the val videos three; the data now have two" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("norm", "vanished"), [(1e-7, True), (0.01, False), (20.0, False)]
)
def test_a_vanished_gradient_is_reported(norm, vanished):
    values = {"loss": 0.23, "lr": 1e-4, "grad_norm": norm, "skipped": 0}
    text = progress_text("all", values, 8.0, 0.0)
    assert ("raise optim.cross_entropy_weight" in text) == vanished
