"""Folds and seeds: which runs a command means, which are done, what they average."""

import dataclasses
import json
import math

import numpy as np
import pytest

from dmnet_jax.config import Config, DataConfig
from dmnet_jax.config.serialization import ConfigError
from dmnet_jax.training.cross_validation import (
    RunFlags,
    average,
    average_tables,
    is_finished,
    plan_runs,
    write_average,
)

RECIPE = Config(name="x", data=DataConfig(dataset="endovis17"))


def keys(runs):
    return [(run.data.fold, run.train.seed) for run in runs]


def test_flags_select_the_runs():
    assert plan_runs(RECIPE, RunFlags()) == [RECIPE]
    assert keys(plan_runs(RECIPE, RunFlags(fold=2))) == [(2, 0)]
    assert keys(plan_runs(RECIPE, RunFlags(fold="all"))) == [(k, 0) for k in range(4)]
    assert keys(plan_runs(RECIPE, RunFlags(repeat=3))) == [(0, 0), (0, 1), (0, 2)]
    runs = plan_runs(RECIPE, RunFlags(fold="all", repeat=5))
    assert sorted(keys(runs)) == [(k, s) for k in range(4) for s in range(5)]
    assert len({run.run_directory for run in runs}) == 20
    direct = dataclasses.replace(RECIPE.data, fold=2)
    assert plan_runs(RECIPE, RunFlags(fold=2))[0].data == direct


@pytest.mark.parametrize(
    ("data", "flags", "message"),
    [
        (RECIPE.data, RunFlags(fold=4), "--fold 4: folds are 0 to 3, or all"),
        (RECIPE.data, RunFlags(fold=-1), "--fold -1: folds are"),
        (RECIPE.data, RunFlags(repeat=0), "--repeat is 0"),
        (DataConfig(dataset="endovis18"), RunFlags(fold="all"), "has no folds"),
        (
            DataConfig(train=("a",), val=("b",)),
            RunFlags(fold="all"),
            "the recipe names its videos",
        ),
    ],
)
def test_invalid_flags_are_rejected(data, flags, message):
    with pytest.raises(ValueError, match=message):
        plan_runs(Config(data=data), flags)


def test_a_run_is_finished_if_its_results_are_of_its_config(tmp_path):
    config = dataclasses.replace(RECIPE, workdir=str(tmp_path))
    config.run_directory.mkdir(parents=True)
    assert not is_finished(config)
    path = config.run_directory / "results.json"
    path.write_text('{"about": {"conf')
    assert not is_finished(config)
    path.write_text(json.dumps({"about": {"config": dataclasses.asdict(config)}}))
    assert is_finished(config)
    moved = dataclasses.replace(config.data, root="elsewhere")
    assert is_finished(dataclasses.replace(config, data=moved))
    longer = dataclasses.replace(config.train, epochs=200)
    assert not is_finished(dataclasses.replace(config, train=longer))
    other = dataclasses.replace(config.optim, lr=0.5)
    with pytest.raises(ConfigError, match=r"optim.lr was 0.0001, now 0.5"):
        is_finished(dataclasses.replace(config, optim=other))


def result(fold, seed, iou, *, wrist: float | None = 0.25, **changed):
    scores = {"iou": iou, "dice": (1 + iou) / 2}
    classes = {"shaft": iou, "wrist": wrist}
    scores |= {"iou_per_class": classes, "dice_per_class": classes}
    return {
        "about": {"config": {"data": {"fold": fold}, "train": {"seed": seed}}},
        "classes": ["background", "shaft", "wrist"],
        "scoring": {"score_at": "label", "tolerance_px": 5.0},
        "frames": 24,
        "versions": {},
        "split_sha256": f"split{fold}",
        "weights_sha256": f"weights{fold}{seed}",
        "protocols": {
            "ternaus": {"letter": "A", "meaning": "frames, classes", **scores},
            "global": {"letter": "F", "meaning": "pixels", **scores},
        },
        "surface_distance": {"mean": iou / 2, "tolerance_px": 5.0},
        "flicker": {"share": 1 - iou},
    } | changed


def test_averages_equal_those_of_the_table():
    rng = np.random.default_rng(0)
    table = rng.random((3, 4))  # [seed, fold]
    runs = [
        result(fold, seed, table[seed, fold], wrist=None if fold == 1 else 0.25)
        for seed in range(3)
        for fold in range(4)
    ]
    summary = average(runs)
    iou = summary["protocols"]["ternaus"]["iou"]
    np.testing.assert_allclose(iou["folds"], table.mean(0))
    np.testing.assert_allclose(iou["seeds"], table.mean(1))
    np.testing.assert_allclose(iou["mean"], table.mean())
    np.testing.assert_allclose(iou["deviation_over_folds"], table.mean(0).std(ddof=1))
    np.testing.assert_allclose(iou["deviation_over_seeds"], table.mean(1).std(ddof=1))
    np.testing.assert_allclose(summary["flicker"]["mean"], 1 - table.mean())
    # A class without a score in a fold is left out of the mean, not counted as 0.
    wrist = summary["protocols"]["global"]["iou_per_class"]["wrist"]
    assert wrist["mean"] == 0.25 and math.isnan(wrist["folds"][1])
    # The order of runs does not matter.
    again = average([runs[0], *runs[:0:-1]])
    np.testing.assert_allclose(
        again["protocols"]["global"]["dice"]["mean"],
        summary["protocols"]["global"]["dice"]["mean"],
    )


def test_the_summary_is_saved_and_returned(tmp_path):
    folders = []
    for fold, iou in enumerate((0.5, 0.7)):
        folders.append(tmp_path / f"fold{fold}-seed0")
        folders[-1].mkdir()
        (folders[-1] / "results.json").write_text(json.dumps(result(fold, 0, iou)))
    text = write_average(tmp_path, folders)
    assert (tmp_path / "summary.md").read_text() == text + "\n"
    assert "| A   | ternaus  | 0.5000 | 0.7000 | 0.6000 |  0.1414 |" in text
    assert "fold 0 | fold 1 |   mean | ± folds |" in text
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["protocols"]["global"]["iou"]["deviation_over_seeds"] is None
    assert [run["weights_sha256"] for run in saved["runs"]] == [
        "weights00",
        "weights10",
    ]
    (folders[1] / "results.json").write_text("{")
    with pytest.raises(ValueError, match="fold1-seed0/results.json: cannot be read"):
        write_average(tmp_path, folders)


def test_runs_of_one_fold_have_a_column_per_seed():
    text = average_tables(average([result(0, 0, 0.5), result(0, 1, 0.7)]))
    assert "seed 0 | seed 1 |   mean | ± seeds |" in text


def test_runs_that_cannot_be_averaged_are_rejected():
    one = result(0, 0, 0.5)
    with pytest.raises(ValueError, match="expected one run per fold and seed"):
        average([one, one])
    with pytest.raises(ValueError, match="expected one run per fold and seed"):
        average([one, result(1, 0, 0.5), result(1, 1, 0.5)])
    other = result(1, 0, 0.5, scoring={"score_at": "input", "tolerance_px": 5.0})
    with pytest.raises(ValueError, match=r"different scoring .*label.* and .*input"):
        average([one, other])
