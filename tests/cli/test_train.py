"""train.py and evaluate.py as commands: a run, killed runs, and errors."""

import importlib.util
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dmnet_jax.checkpoint import load_variables
from dmnet_jax.process import run_lock
from tests.support.tiny_run import (
    RECIPE,
    ROOT,
    RUN,
    TRAIN_STEPS,
    run_script,
    train_arguments,
    trained,
    write_videos,
)
from tests.support.toy import use_toy_networks


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def folder(session):
    return trained(session)[0]


@pytest.fixture(scope="module")
def whole(session):
    folder, process = trained(session)
    assert process.returncode == 0, process.stderr
    return folder / "whole" / RUN, process.stdout


def records(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_a_run_writes_all_its_files(whole):
    run, output = whole
    for name in ("config.json", "results.json", "results.md", "frames.csv"):
        assert (run / name).stat().st_size > 0
    assert list((run / "overlays").glob("two_*.png"))
    assert "| class" in output and "mean" in output
    steps = [r["step"] for r in records(run) if "loss" in r]
    assert steps == list(range(1, TRAIN_STEPS + 1))
    _, about = load_variables(run, "newest")
    assert about["train_videos"] == ["one"] and about["val_videos"] == ["two"]
    results = json.loads((run / "results.json").read_text())
    assert set(results["protocols"]["global"]["videos"]) == {"two"}


def same_run(a: Path, b: Path) -> None:
    """Checks that variables are bit-identical and records and scores are equal."""
    trees = (load_variables(run, "newest")[0] for run in (a, b))
    jax.tree.map(np.testing.assert_array_equal, *trees)
    assert records(a) == records(b)
    protocols = [
        json.loads((run / "results.json").read_text())["protocols"] for run in (a, b)
    ]
    assert protocols[0] == protocols[1]


@pytest.mark.parametrize(
    ("number", "step", "status"),
    [(signal.SIGKILL, 3, -signal.SIGKILL), (signal.SIGTERM, 5, 143)],
)
def test_a_stopped_run_ends_like_an_uninterrupted_one(
    session, folder, whole, number, step, status
):
    arguments = train_arguments(folder, f"stopped-{number}")
    cache = session / "compiled"
    stopped = run_script(
        cache, "train.py", *arguments, signal=number, step=step, toy=True
    )
    assert stopped.returncode == status, stopped.stderr
    resumed = run_script(cache, "train.py", *arguments, toy=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at step" in resumed.stdout
    same_run(folder / f"stopped-{number}" / RUN, whole[0])


def test_evaluation_reproduces_the_scores_of_the_run(whole, tmp_path, capsys):
    run, _ = whole
    arguments = ["--checkpoint", str(run), "--out", str(tmp_path)]
    with use_toy_networks():
        assert load("evaluate").main(arguments) == 0
    result = json.loads((tmp_path / "results.json").read_text())["protocols"]
    expected = json.loads((run / "results.json").read_text())["protocols"]
    for name in expected:
        assert result[name]["iou"] == pytest.approx(expected[name]["iou"], abs=1e-3)
    assert "| class" in capsys.readouterr().out


def error_of(main, arguments: list[str], capsys) -> str:
    """Runs a command that fails with status 2; returns its error."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_evaluation_rejects_training_videos_and_missing_runs(whole, tmp_path, capsys):
    run, _ = whole
    main = load("evaluate").main
    trained = ["--checkpoint", str(run), "--videos", "one"]
    with use_toy_networks():
        assert "was trained on one" in error_of(main, trained, capsys)
    missing = ["--checkpoint", str(tmp_path / "none")]
    assert "none" in error_of(main, missing, capsys)


def add_fault(root: Path, fault: str) -> None:
    frame, mask = root / "one" / "frames" / "3.png", root / "one" / "masks" / "3.png"
    if fault == "wrong mask value":
        Image.fromarray(np.full((64, 64), 7, np.uint8)).save(mask)
    elif fault == "missing mask":
        mask.unlink()
    elif fault == "two sizes":
        Image.new("RGB", (41, 48)).save(frame)
    elif fault == "unreadable image":
        frame.write_bytes(frame.read_bytes()[:60])
    else:
        for path in (root / "one" / "frames").iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("wrong mask value", "3.png"),
        ("missing mask", "3"),
        ("two sizes", "3.png"),
        ("unreadable image", "3.png"),
        ("empty folder", "frames"),
    ],
)
def test_errors_name_faulty_files(folder, tmp_path, capsys, fault, message):
    root = write_videos(tmp_path / "videos")
    add_fault(root, fault)
    arguments = [*train_arguments(folder, "faulty"), "--data.root", str(root)]
    with use_toy_networks():
        assert message in error_of(load("train").main, arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.rate", "1"], "optim.rate"),
        (["--train.batch-size", "6"], "6"),
        (["--data.root", "nowhere"], "nowhere"),
        (["--data.num-classes", "4"], "data.num_classes is 4"),
        (["--data.val", "c"], "no video 'c'"),
    ],
)
def test_errors_name_invalid_arguments(folder, capsys, arguments, message):
    arguments = [*train_arguments(folder, "invalid"), *arguments]
    assert message in error_of(load("train").main, arguments, capsys)


def test_another_recipe_does_not_resume_a_run(folder, whole, capsys):
    arguments = [*train_arguments(folder, "whole"), "--optim.lr", "0.5"]
    error = error_of(load("train").main, arguments, capsys)
    assert "optim.lr was 0.001, now 0.5" in error


def test_a_run_in_use_is_rejected(tmp_path, capsys):
    write_videos(tmp_path / "videos")
    (tmp_path / "tiny.py").write_text(RECIPE)
    with run_lock(tmp_path / "work" / RUN):
        arguments = train_arguments(tmp_path, "work")
        error = error_of(load("train").main, arguments, capsys)
    assert "in use by process" in error and len(error.splitlines()) == 1
