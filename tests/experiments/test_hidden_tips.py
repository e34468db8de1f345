"""The hidden-tips experiment: pixels that are counted, rows and errors."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_pipelines.sources.folder import open_folder
from dmnet_jax.config import DataConfig
from dmnet_jax.experiments import hidden_tips
from dmnet_jax.experiments.__main__ import main
from tests.support import tiny_run

ROWS = {
    "network": {"0": [90, 100], "2": [8, 10], "20": [30, 90]},
    "single frame": {"0": [90, 100], "2": [2, 10], "20": [18, 90]},
}


def test_pixels_are_counted_by_age():
    label = np.array([[1, 2, 2], [0, 1, 1]])
    truth = np.array([[1, 1, 2], [0, 1, 2]])
    known = np.array([[1, 1, 4], [0, 4, 0]])
    ages = {}
    hidden_tips.count(ages, label, truth, known)
    hidden_tips.count(ages, label, truth, known)
    assert {age: counts.tolist() for age, counts in ages.items()} == {
        0: [2, 4],
        3: [4, 4],
    }


def test_accuracy_pools_the_pixels_of_a_range_of_ages():
    assert hidden_tips.accuracy(ROWS["network"], 0, 0) == pytest.approx(0.9)
    assert hidden_tips.accuracy(ROWS["network"], 1, 254) == pytest.approx(0.38)
    assert math.isnan(hidden_tips.accuracy(ROWS["network"], 5, 8))


def test_the_report_has_means_and_deviations_over_runs():
    lower = {row: {"0": [80, 100], "2": [8, 10]} for row in ROWS}
    text = hidden_tips.tables({"a/fold0-seed0": ROWS, "a/fold0-seed1": lower})
    (row,) = (line for line in text.splitlines() if line.startswith("| network"))
    assert "0.850 ± 0.071" in row and "0.590 ± 0.297" in row
    html = hidden_tips.page({"a/fold0-seed0": ROWS})
    assert html.count("<svg") == 2


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of a tiny network with two videos whose evidence is known."""
    root = tiny_run.write_videos(tmp_path / "videos", frames=3)
    source = open_folder(root)
    for number, video in enumerate(source.videos):
        folder = root / video.name / "evidence"
        folder.mkdir()
        for index, name in enumerate(video.frames):
            label = source.label(number, index)
            assert label is not None
            known = np.where(label > 0, 1 + index, 0).astype(np.uint8)
            Image.fromarray(known).save(folder / f"{name}.png")
    model, variables = tiny_run.network()
    data = DataConfig(dataset="folder", root=str(root), size=(64, 64), num_classes=3)
    trained = SimpleNamespace(
        model=model,
        variables=variables,
        config=SimpleNamespace(data=data),
        about={"val_videos": [video.name for video in source.videos]},
    )
    monkeypatch.setattr(
        "dmnet_jax.checkpoint.runs.load_run", lambda run, which: trained
    )
    return root


def test_all_rows_are_scored_on_the_same_pixels(run, tmp_path, capsys):
    out = tmp_path / "report"
    flags = ["hidden-tips", "--checkpoints", "a/run", "--out", str(out)]
    assert main(flags) == 0
    (rows,) = json.loads((out / "hidden_tips.json").read_text()).values()
    assert {*rows} == {
        "network",
        "single frame",
        "emptied memory",
        "current frame as memory",
        "shuffled memory",
        "another video's memory",
        "last mask",
        "average 0.4",
        "average 0.6",
        "average 0.8",
    }
    totals = {
        row: {age: counts[1] for age, counts in ages.items()}
        for row, ages in rows.items()
    }
    assert len({json.dumps(total) for total in totals.values()}) == 1
    assert list(totals["network"]) == ["0", "1", "2"]
    # The first frame of a video has no memory.
    assert rows["network"]["0"] == rows["emptied memory"]["0"]
    assert "single frame" in capsys.readouterr().out


def test_missing_evidence_names_the_file(run, capsys):
    (run / "one" / "evidence" / "1.png").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["hidden-tips", "--checkpoints", "a/run"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "1.png: no such file; write the videos with --layout hidden-tips" in line


def test_runs_must_be_named(capsys):
    with pytest.raises(SystemExit):
        main(["hidden-tips"])
    assert "--checkpoints is missing" in capsys.readouterr().err
