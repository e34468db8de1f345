"""evaluate.py: which run, which checkpoint, which videos, and what is refused."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest

from dmnet_jax.checkpoint.folder import listed
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


def refusal(arguments, capsys):
    """What a mistake is answered with: one line, status 2."""
    # The run is of a toy, which its config does not tell.
    with pytest.raises(SystemExit) as stop, toy.use_toy_networks():
        MAIN([str(argument) for argument in arguments])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_numbers_are_those_of_the_run(session, run, tmp_path):
    """Bit for bit, by the run's own programs; another folder may be named."""
    videos = write_videos(tmp_path / "moved")
    done = run_script(
        *(session / "compiled", "evaluate.py", "--checkpoint", run),
        *("--root", videos, "--out", tmp_path / "out"),
        toy=True,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "out", run)
    )
    assert ours == theirs
    table = (run / "results.md").read_text()
    assert table in done.stdout
    rows = [(folder / "frames.csv").read_text() for folder in (tmp_path / "out", run)]
    assert rows[0] == rows[1]
    assert (tmp_path / "out" / "overlays" / "sheet.png").exists()


def test_a_damaged_checkpoint_is_not_evaluated(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    steps = listed(copy / "checkpoints")
    assert len(steps) >= 2
    for step in steps:
        metadata = copy / "checkpoints" / str(step) / "meta" / "metadata"
        metadata.write_text(metadata.read_text().replace('"step"', '"stop"'))
    line = refusal(["--checkpoint", copy], capsys)
    assert "no good checkpoint" in line and f"step {steps[-1]}" in line


@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_run_that_is_not_there(which, tmp_path, capsys):
    line = refusal(["--checkpoint", tmp_path / "nothing", "--which", which], capsys)
    assert "nothing" in line and "no checkpoint here; train first" in line


def test_no_run_of_a_fold_names_the_command_that_makes_one(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "configs" / "endovis17.py"
    line = refusal(["--config", recipe, "--fold", 3], capsys)
    assert "no run of fold 3" in line
    assert f"python train.py --config {recipe} --fold 3" in line


def test_data_of_another_class_count(run, tmp_path, capsys):
    root = write_videos(tmp_path / "videos")
    write_classes(root, ("background", "one", "two", "three"))
    line = refusal(["--checkpoint", run, "--root", root], capsys)
    assert "data.num_classes is 3, but the dataset has 4" in line


def test_videos_that_are_unknown_or_were_trained_on(run, tmp_path, capsys):
    line = refusal(["--checkpoint", run, "--videos", "three"], capsys)
    assert "no video 'three'; the videos are one, two" in line
    line = refusal(["--checkpoint", run, "--videos", "two", "one"], capsys)
    assert "was trained on one" in line
    # The same frames under another name.
    copy = write_videos(tmp_path / "copy", names=("three",))
    arguments = ["--checkpoint", run, "--root", copy, "--videos", "three"]
    assert "was trained on one (here three)" in refusal(arguments, capsys)
    line = refusal(["--checkpoint", run, "--root", tmp_path / "gone"], capsys)
    assert "no such folder" in line


def test_the_recipes_name_of_the_folder_is_told_to_be_root():
    command = [sys.executable, "evaluate.py", "--data.root", "x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--data.root is --root here" in done.stderr
