"""The memory-value experiment: scores, cells and resuming."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from dmnet_jax.config import Config, StageConfig, load_config
from dmnet_jax.experiments import memory_value
from dmnet_jax.experiments.__main__ import main
from dmnet_jax.experiments.memory_table import (
    SINGLE_FRAME,
    Cell,
    page,
    summary,
    tables,
)

SCORES = ("corrupted", "trained_kinds", "unseen_kinds", "clean_between", "clean_video")


def row(value, **more):
    return {**dict.fromkeys(SCORES, value), "recovery_frames": 1.0} | more


def cells(gain=(0.2, 0.3), foreign=-0.1):
    """Returns cells of two seeds on two videos; the memory's gain differs by seed."""
    result = []
    for seed, extra in enumerate(gain):
        for division, base in (("a", 0.4), ("b", 0.6)):
            rows = {
                "network": row(base + extra),
                "single frame": row(base),
                "another video's memory": {"corrupted": base + foreign},
                "average 0.6": row(base + 0.05),
                "exponential average": row(base + 0.05, best="average 0.6"),
            }
            result.append(Cell(division, "mine", seed, rows))
            single = {"network": row(base)}
            result.append(Cell(division, SINGLE_FRAME, seed, single))
    return result


def test_means_are_over_videos_and_deviations_over_seeds():
    result = summary(cells(), "mine")
    assert result["seeds"] == [0, 1] and result["divisions"] == ["a", "b"]
    mean, spread = result["rows"]["mine"]["corrupted"]
    assert mean == pytest.approx(0.75)
    assert spread == pytest.approx(np.std([0.7, 0.8], ddof=1))
    # The best rule of a family is listed under the name of the family.
    assert "average 0.6" not in result["rows"]
    points, spread, significant = result["gains"][SINGLE_FRAME]["corrupted"]
    assert points == pytest.approx(25) and spread == pytest.approx(np.sqrt(50))
    assert significant  # 25 > 2 * 7.07
    assert not summary(cells(gain=(0.0, 0.3)), "mine")["gains"][SINGLE_FRAME][
        "corrupted"
    ][2]


def test_missing_scores_are_undefined():
    result = summary(cells(), "mine")
    assert math.isnan(result["rows"]["another video's memory"]["clean between"][0])
    points = result["gains"]["another video's memory"]["corrupted"][0]
    assert points == pytest.approx(35)
    text = tables(result)
    assert "+35.0 ± 7.1 *" in text and "0.750 ± 0.071" in text and "n/a" in text
    html = page(result)
    assert html.count("<svg") == 7 and "http" not in html.replace("http-equiv", "")


def test_the_error_names_a_missing_cell():
    with pytest.raises(ValueError, match=r"mine: no score of .*\(1, 'b'\)"):
        summary([c for c in cells() if c[:3] != ("b", "mine", 1)], "mine")


def test_cells_are_planned_seed_by_seed_in_separate_folders(tmp_path):
    config = load_config("endovis15_state")
    data = replace(config.data, root="DIR", train=("x", "y"), val=("z",))
    config = replace(config, data=data)
    flags = memory_value.Flags("leave-one-out", seeds=2, also=("endovis15",))
    plans = list(memory_value.plan(config, flags, tmp_path))
    assert len(plans) == 2 * 3 * 3 and [p.seed for p in plans] == [0] * 9 + [1] * 9
    folders = {p.config.run_directory for p in plans}
    assert len(folders) == len(plans)
    for cell in plans:
        assert cell.config.data.val == (cell.division,)
        assert {*cell.config.data.train} == {"x", "y", "z"} - {cell.division}
        assert cell.config.train.seed == cell.seed
    alone = next(p.config for p in plans if p.recipe == SINGLE_FRAME)
    assert not alone.model.has_memory
    # The control has the same number of epochs with the same corruptions.
    assert alone.resolved_stages == tuple(
        StageConfig(
            "single frame",
            stage.epochs,
            train="single_frame",
            corruptions=stage.corruptions,
        )
        for stage in config.resolved_stages
    )
    equal = tuple(replace(s, corruptions=1) for s in config.resolved_stages)
    equal = replace(config, train=replace(config.train, stages=equal))
    epochs = sum(stage.epochs for stage in config.resolved_stages)
    assert memory_value.single_frame(equal).resolved_stages == (
        StageConfig("single frame", epochs, train="single_frame"),
    )


def test_leave_one_out_needs_named_videos(tmp_path):
    with pytest.raises(ValueError, match="name them, or use --divisions folds"):
        list(memory_value.divisions(Config(), "leave-one-out"))
    folds = [name for name, _ in memory_value.divisions(Config(), "folds")]
    assert folds == ["fold0", "fold1", "fold2", "fold3"]


def test_finished_cells_are_not_repeated(tmp_path, monkeypatch, capsys):
    """Finished cells are neither trained nor scored again."""
    calls = []

    def train(config, run, stop):
        calls.append(("train", run))
        run.mkdir(parents=True)
        (run / "results.json").write_text(json.dumps({"weights_sha256": str(run)}))

    def evaluate(run, flags):
        calls.append(("evaluate", run))
        assert flags.controls and flags.corrupt == "bursts"
        folder = run / "bursts"
        folder.mkdir(exist_ok=True)
        settings = {"passes": flags.corrupt_passes, "controls": True}
        report = {
            "weights_sha256": str(run),
            "bursts": settings,
            "rows": {"network": row(0.5), "single frame": row(0.4)},
        }
        (folder / "bursts.json").write_text(json.dumps(report))
        return folder

    monkeypatch.setattr("dmnet_jax.cli.train.train", train)
    monkeypatch.setattr("dmnet_jax.cli.evaluate.evaluate", evaluate)
    monkeypatch.setattr(
        "dmnet_jax.training.cross_validation.is_finished",
        lambda config: config.run_directory.is_dir(),
    )
    command = ["memory-value", "--config", "endovis15_state", "--data.root", "none"]
    command += ["--seeds", "2", "--out", str(tmp_path), "--passes", "1"]
    assert main(command) == 0
    assert len(calls) == 8  # two seeds, two recipes, trained and scored
    assert "+10.0" in (tmp_path / "memory_value.md").read_text()
    written = (tmp_path / "memory_value.json").read_text()
    assert "NaN" not in written  # it is not valid JSON
    assert json.loads(written)["gains"]["single frame"]["corrupted"][
        0
    ] == pytest.approx(10)
    assert main(command) == 0 and len(calls) == 8
    # With other settings, cells are scored again but not trained again.
    assert main([*command[:-1], "2"]) == 0
    assert [kind for kind, _ in calls[8:]] == ["evaluate"] * 4
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--seeds", "0"), "--seeds and --passes must be at least 1"),
        (("--divisions", "folds"), "endovis15 has no folds"),
        (("--also", "nothing_of_that_name"), "nothing_of_that_name"),
        (("--also", "endovis15_state"), "'endovis15_state' is already compared"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    command = ["memory-value", "--config", "endovis15_state", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main([*command, *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
