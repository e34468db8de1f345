"""train.py and evaluate.py over folds and seeds: order, skipped runs, and stops."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

from dmnet_jax.cli import evaluate as evaluate_command
from dmnet_jax.cli import train as train_command
from tests.support.tiny_run import ROOT
from tests.training.test_cross_validation import result

RECIPE = str(ROOT / "configs" / "endovis17.py")


def leave_results(folder: Path, config) -> None:
    """Writes the results of a run with an IoU of 0.5 + 0.1 * fold + 0.01 * seed."""
    fold, seed = config.data.fold, config.train.seed
    results = result(fold, seed, 0.5 + 0.1 * fold + 0.01 * seed)
    results["about"]["config"] = dataclasses.asdict(config)
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def training(monkeypatch, tmp_path):
    """(main, names of trained runs): train.py with a training that writes results."""
    module, trained = train_command, []

    def train(config, run_dir, stop):
        assert run_dir == config.run_directory
        run_dir.mkdir(parents=True, exist_ok=True)
        trained.append(run_dir.name)
        if run_dir.name == "fold1-seed0" and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            return
        leave_results(run_dir, config)

    monkeypatch.setattr(module, "train", train)
    arguments = ["--config", RECIPE, "--workdir", str(tmp_path)]
    return lambda *more: module.main([*arguments, *more]), trained


def test_runs_stop_at_a_signal_and_resume_where_they_stopped(
    training, tmp_path, capsys
):
    main, trained = training
    assert main("--fold", "all") == 143
    assert trained == ["fold0-seed0", "fold1-seed0"]
    folder = tmp_path / "endovis17"
    assert not (folder / "summary.json").exists()
    capsys.readouterr()
    assert main("--fold", "all") == 0
    assert trained[2:] == ["fold1-seed0", "fold2-seed0", "fold3-seed0"]
    output = capsys.readouterr().out
    assert f"{folder / 'fold0-seed0'}: already finished" in output
    assert (folder / "summary.md").read_text() in output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocols"]["ternaus"]["iou"]["mean"] == pytest.approx(0.65)


def test_folds_and_seeds_together(training, tmp_path):
    main, trained = training
    (tmp_path / "once").touch()
    assert main("--fold", "all", "--repeat", "2", "--train.seed", "3") == 0
    assert trained == [f"fold{k}-seed{s}" for s in (3, 4) for k in range(4)]
    summary = json.loads((tmp_path / "endovis17" / "summary.json").read_text())
    assert summary["seeds"] == [3, 4] and summary["folds"] == [0, 1, 2, 3]
    assert main("--fold", "all", "--repeat", "2", "--train.seed", "3") == 0
    assert len(trained) == 8


def test_a_single_run_is_never_skipped(training, tmp_path):
    main, trained = training
    assert main("--fold", "2") == main("--data.fold", "2") == 0
    assert trained == ["fold2-seed0"] * 2
    assert not (tmp_path / "endovis17" / "summary.json").exists()


@pytest.fixture
def evaluating(monkeypatch, tmp_path):
    """(main, evaluated runs): evaluate.py with an evaluation that writes results."""
    module, evaluated = evaluate_command, []
    config = module.load_config(RECIPE)
    monkeypatch.chdir(tmp_path)

    def evaluate(run, flags):
        evaluated.append(str(run))
        out = Path(flags.out or run / "evaluation")
        out.mkdir(parents=True, exist_ok=True)
        fold, seed = (int(part[4:]) for part in run.name.split("-"))
        run_config = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, fold=fold),
            train=dataclasses.replace(config.train, seed=seed),
        )
        leave_results(out, run_config)
        return out

    monkeypatch.setattr(module, "evaluate", evaluate)
    for time, name in enumerate(("fold2-seed1", "fold2-seed0", "fold0-seed0")):
        saved = tmp_path / "runs" / "endovis17" / name / "checkpoints"
        saved.mkdir(parents=True)
        os.utime(saved, (time, time))
    return lambda *more: module.main(["--config", RECIPE, *more]), evaluated


def test_a_fold_selects_its_newest_run(evaluating, capsys):
    main, evaluated = evaluating
    assert main("--fold", "2") == main() == 0
    newest = ["runs/endovis17/fold2-seed0", "runs/endovis17/fold0-seed0"]
    assert evaluated == newest
    with pytest.raises(SystemExit) as stop:
        main("--fold", "all")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    command = f"python train.py --config {RECIPE}"
    assert f"no run of fold 1; train one with {command}" in error


def test_the_error_of_an_installed_command_names_an_installed_command(
    evaluating, capsys, monkeypatch
):
    main, _ = evaluating
    monkeypatch.setattr("sys.argv", ["/usr/bin/dmnet-evaluate"])
    with pytest.raises(SystemExit):
        main("--fold", "1")
    assert "train one with dmnet-train --config" in capsys.readouterr().err


def test_all_folds_are_averaged(evaluating, tmp_path, capsys):
    main, evaluated = evaluating
    for fold in (1, 3):
        (tmp_path / f"runs/endovis17/fold{fold}-seed0/checkpoints").mkdir(parents=True)
    assert main("--fold", "all") == 0
    assert evaluated == [f"runs/endovis17/fold{k}-seed0" for k in range(4)]
    text = (tmp_path / "runs/endovis17/evaluation/summary.md").read_text()
    assert text in capsys.readouterr().out
    assert "| A   | ternaus  | 0.5000 | 0.6000 | 0.7000 | 0.8000 | 0.6500 |" in text
    assert main("--fold", "all", "--out", "elsewhere") == 0
    assert (tmp_path / "elsewhere" / "fold3-seed0" / "results.json").exists()
    assert (tmp_path / "elsewhere" / "summary.md").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fold", "4"], "--fold 4: folds are 0 to 3, or all"),
        (["--fold", "two"], "error parsing --fold"),
        (["--fold", "1", "--checkpoint", "x"], "exclude each other"),
        (["--enlarge", "cubic"], "--enlarge"),
    ],
)
def test_errors_are_one_line(evaluating, arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluating[0](*arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
