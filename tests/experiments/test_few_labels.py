"""The few-labels experiment: cells, equal steps, scores and resuming."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dmnet_jax.config import Config, load_config
from dmnet_jax.experiments import few_labels
from dmnet_jax.experiments.__main__ import main
from dmnet_jax.experiments.few_labels import Cell
from tests.support.tiny_run import write_videos


@pytest.fixture
def config(tmp_path):
    """Three videos of six frames, with three classes."""
    root = write_videos(tmp_path / "videos", names=("a", "b", "c"))
    recipe = load_config("endovis15_state")
    return replace(
        recipe,
        data=replace(
            recipe.data,
            dataset="folder",
            root=str(root),
            num_classes=3,
            train=("a", "b"),
            val=("c",),
        ),
    )


def test_cells_differ_in_labels_start_division_and_seed(config, tmp_path):
    flags = few_labels.Flags(labels=(1, 0), divisions="leave-one-out", seeds=2)
    cells = list(few_labels.plan(config, flags, tmp_path))
    assert len({cell.config.run_directory for cell in cells}) == len(cells) == 24
    for cell in cells:
        data, model = cell.config.data, cell.config.model
        assert data.val == (cell.division,) and cell.division not in data.train
        assert (data.max_labels, model.pretrained) == (cell.labels, cell.start)
        assert cell.config.train.seed == cell.seed and not model.has_memory
    assert [cell.seed for cell in cells] == [0] * 12 + [1] * 12


@pytest.mark.parametrize("labels", [1, 3, 5, 6])
def test_the_number_of_steps_does_not_depend_on_the_labels(config, labels):
    # Eight epochs of 6 targets (every other frame) in batches of 4: 16 steps.
    recipe = few_labels.single_frame(config)
    assert few_labels.count_targets(recipe, frame_step=2) == 6
    limited = few_labels.with_labels(recipe, labels, 6)
    (stage,) = limited.resolved_stages
    per_epoch = -(-labels // 4)
    assert stage.epochs * per_epoch == 16
    assert limited.data.max_labels == labels and limited.data.frame_step == 1
    # The learning rate drops after the same number of steps, 12.
    assert [epoch * per_epoch for epoch in limited.optim.drop_epochs] == [12]
    assert few_labels.with_labels(recipe, 0, 6) == recipe


def test_means_are_over_divisions_and_gains_are_paired():
    scores = {}
    for seed, noise in enumerate((0.0, 0.1)):
        for division, base in (("a", 0.4), ("b", 0.6)):
            for labels in (5, 0):
                for start, gain in (("mine", 0.2 + noise), ("other", 0.0)):
                    cell = Cell(division, start, labels, seed, Config())
                    scores[cell] = base + gain + 0.1 * (labels == 0)
    result = few_labels.summary(scores)
    mean, spread = result["scores"]["mine"]["5"]
    assert mean == pytest.approx(0.75)
    assert spread == pytest.approx(np.std([0.7, 0.8], ddof=1))
    mean, spread = result["gains"]["mine"]["0"]
    assert mean == pytest.approx(25) and spread == pytest.approx(np.sqrt(50))
    text = few_labels.tables(result)
    assert "0.750 ± 0.071" in text and "+25.0 ± 7.1" in text
    assert "mine - other, points" in text and "all labels" in text
    assert few_labels.page(result).count("<svg") == 2


def test_finished_cells_are_not_repeated(config, tmp_path, monkeypatch, capsys):
    trained = []

    def train(config, run, stop):
        trained.append(run)
        run.mkdir(parents=True)

    monkeypatch.setattr("dmnet_jax.cli.train.train", train)
    monkeypatch.setattr(
        "dmnet_jax.training.cross_validation.is_finished",
        lambda config: config.run_directory.is_dir(),
    )
    monkeypatch.setattr(few_labels, "read_score", lambda run: 0.25)
    data = config.data
    command = ["few-labels", "--config", "finetune", "--data.root", data.root]
    command += ["--data.train", "a", "b", "--data.val", "c", "--data.num-classes", "3"]
    command += ["--seeds", "1", "--labels", "2", "0", "--out", str(tmp_path / "out")]
    assert main(command) == 0 and len(trained) == 4
    report = json.loads((tmp_path / "out" / "few_labels.json").read_text())
    assert report["scores"]["imagenet"] == {"2": [0.25, None], "0": [0.25, None]}
    assert (tmp_path / "out" / "few_labels.html").is_file()
    assert main(command) == 0 and len(trained) == 4
    capsys.readouterr()


def test_too_many_labels_are_refused_before_training(config, tmp_path):
    flags = few_labels.Flags(labels=(1, 13))
    with pytest.raises(ValueError, match="--labels 13: .* have only 12 labels"):
        next(few_labels.plan(config, flags, tmp_path))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--seeds", "0"), "--seeds, --labels and --starts need at least one value"),
        (("--labels", "-1"), "negative"),
        (("--divisions", "folds"), "endovis15 has no folds"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    command = ["few-labels", "--config", "endovis15", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main([*command, *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
