"""evaluate.py --corrupt bursts, as a command."""

import json
import runpy

import pytest

from tests.support import toy
from tests.support.tiny_run import ROOT, RUN, run_script, trained, write_videos

MAIN = runpy.run_path(str(ROOT / "evaluate.py"))["main"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def run(session):
    folder, process = trained(session)
    assert process.returncode == 0, process.stderr
    return folder / "whole" / RUN


def test_disturbed_video_is_scored(session, run, tmp_path):
    videos, out = write_videos(tmp_path / "videos", frames=24), tmp_path / "out"
    done = run_script(
        *(session / "compiled", "evaluate.py", "--checkpoint", run),
        *("--root", videos, "--out", out, "--corrupt", "bursts", "--controls"),
        *("--corrupt-passes", 3, "--corrupt-seed", 1, "--corrupt-kinds", "smoke"),
        toy=True,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "bursts.md").read_text().strip() in done.stdout
    report = json.loads((out / "bursts.json").read_text())
    assert report["bursts"]["kinds"] == ["smoke"] and report["bursts"]["passes"] == 3
    rows = report["rows"]
    # There is one validation video, so the foreign memory is from the training video.
    assert {"network", "single frame", "another video's memory"} <= {*rows}
    assert rows["network"]["frames"] > 0
    assert rows["network"]["corrupted"] == rows["network"]["unseen_kinds"]
    assert (out / "bursts.csv").exists() and not (out / "results.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--controls",), "--controls needs --corrupt bursts"),
        (("--corrupt", "bursts"), "no burst fits into videos of at most 6 frames"),
        (("--corrupt", "bursts", "--corrupt-kinds", "fog"), "no corruption 'fog'"),
        (("--corrupt", "bursts", "--corrupt-passes", "0"), "--corrupt-passes is 0"),
        (("--corrupt", "bursts", "--seed", "-1"), "seed is -1; it must be 0 to"),
        (("--corrupt", "bursts", "--corrupt-seed", "-1"), "--corrupt-seed is -1"),
    ],
)
def test_errors_are_one_line(arguments, message, run, capsys):
    with pytest.raises(SystemExit) as stop, toy.use_toy_networks():
        MAIN(["--checkpoint", str(run), *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
