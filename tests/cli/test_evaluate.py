"""evaluate.py: selection of run, checkpoint and videos, and rejected inputs."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest

from dmnet_jax.checkpoint.folder import list_steps
from tests.support import toy
from tests.support.tiny_run import (
    ROOT,
    RUN,
    run_script,
    trained,
    write_classes,
    write_videos,
)

MAIN = runpy.run_path(str(ROOT / "evaluate.py"))["main"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def run(session):
    folder, process = trained(session)
    assert process.returncode == 0, process.stderr
    return folder / "whole" / RUN


def error_line(arguments, capsys):
    """Runs a command that fails with status 2; returns its one-line error."""
    # The network is a toy, which the run's config does not describe.
    with pytest.raises(SystemExit) as stop, toy.use_toy_networks():
        MAIN([str(argument) for argument in arguments])
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_results_are_bit_identical_to_those_of_the_run(session, run, tmp_path):
    """The compiled programs of the run are reused; the data may be elsewhere."""
    videos = write_videos(tmp_path / "moved")
    done = run_script(
        *(session / "compiled", "evaluate.py", "--checkpoint", run),
        *("--root", videos, "--out", tmp_path / "out"),
        toy=True,
    )
    assert done.returncode == 0, done.stderr
    result, expected = (
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "out", run)
    )
    assert result == expected
    table = (run / "results.md").read_text()
    assert table in done.stdout
    rows = [(folder / "frames.csv").read_text() for folder in (tmp_path / "out", run)]
    assert rows[0] == rows[1]
    assert (tmp_path / "out" / "overlays" / "sheet.png").exists()


def test_a_damaged_checkpoint_is_not_evaluated(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    steps = list_steps(copy / "checkpoints")
    assert len(steps) >= 2
    for step in steps:
        metadata = copy / "checkpoints" / str(step) / "meta" / "metadata"
        metadata.write_text(metadata.read_text().replace('"step"', '"stop"'))
    line = error_line(["--checkpoint", copy], capsys)
    assert "no intact checkpoint" in line and f"step {steps[-1]}" in line


@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_missing_run_is_reported(which, tmp_path, capsys):
    line = error_line(["--checkpoint", tmp_path / "nothing", "--which", which], capsys)
    assert "nothing" in line and "no checkpoint here; train first" in line


def test_the_error_for_a_fold_without_a_run_names_the_training_command(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "configs" / "endovis17.py"
    line = error_line(["--config", recipe, "--fold", 3], capsys)
    assert "no run of fold 3" in line
    assert f"python train.py --config {recipe} --fold 3" in line


def test_data_with_another_number_of_classes_are_rejected(run, tmp_path, capsys):
    root = write_videos(tmp_path / "videos")
    write_classes(root, ("background", "one", "two", "three"))
    line = error_line(["--checkpoint", run, "--root", root], capsys)
    assert "data.num_classes is 3, but the dataset has 4" in line


def test_unknown_videos_and_training_videos_are_rejected(run, tmp_path, capsys):
    line = error_line(["--checkpoint", run, "--videos", "three"], capsys)
    assert "no video 'three'; the videos are one, two" in line
    line = error_line(["--checkpoint", run, "--videos", "two", "one"], capsys)
    assert "was trained on one" in line
    # The same frames under another name.
    copy = write_videos(tmp_path / "copy", names=("three",))
    arguments = ["--checkpoint", run, "--root", copy, "--videos", "three"]
    assert "was trained on one (here three)" in error_line(arguments, capsys)
    line = error_line(["--checkpoint", run, "--root", tmp_path / "gone"], capsys)
    assert "no such folder" in line


def test_the_error_for_data_root_names_the_flag_root():
    command = [sys.executable, "evaluate.py", "--data.root", "x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--data.root is --root here" in done.stderr
