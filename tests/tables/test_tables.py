"""A table trains missing cells once and leaves unmeasured cells empty."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    StageConfig,
    TrainConfig,
    from_json,
)
from dmnet_jax.evaluation.results import write_json
from dmnet_jax.models.compared import ComparedNetwork
from dmnet_jax.tables import tables
from dmnet_jax.tables.__main__ import main
from dmnet_jax.tables.rows import TABLES, cell_config, chosen, encoder_start, parts
from dmnet_jax.tables.timing import frame_times, summary
from dmnet_jax.training.cross_validation import RunFlags
from tests.training.test_cross_validation import result

ROW = {row.key: row for row in TABLES["table1"]}


def recipe(tmp_path):
    data = DataConfig(dataset="endovis17")
    return Config(name="x", data=data, workdir=str(tmp_path))


@pytest.fixture
def trained(monkeypatch):
    """Records calls of a fake train.py, which writes results or returns `status`."""
    requests = []

    def run(recipe):
        config = from_json(recipe.read_text())
        requests.append((config.name, config.data.fold, config.train.seed))
        if trained.status == 0:
            config.run_directory.mkdir(parents=True)
            fold, seed = config.data.fold, config.train.seed
            results = result(fold, seed, 0.25 + fold / 8)
            results["about"] = {"config": dataclasses.asdict(config)}
            results["protocols"]["dmnet"] = results["protocols"]["global"]
            write_json(config.run_directory / "results.json", results)
        return trained.status

    trained.status = 0
    monkeypatch.setattr(tables, "train_process", run)
    trained.asked = requests
    return trained


def test_cells_have_separate_runs_and_train_equally_long(tmp_path):
    stages = (
        StageConfig("one", 3, train="single_frame"),
        StageConfig("two", 2, train="memory"),
    )
    config = dataclasses.replace(recipe(tmp_path), train=TrainConfig(stages=stages))
    cells = [cell_config(config, row) for row in ROW.values()]
    assert len({cell.run_directory for cell in cells}) == len(cells)
    for cell in cells:
        resolved = cell.resolved_stages
        assert (resolved == stages) == (cell.model.name == "dmnet")
        assert sum(stage.epochs for stage in resolved) == 5
    base = cell_config(config, TABLES["table2a"][0])
    assert [stage.train for stage in base.resolved_stages] == ["all"]


def test_encoders_start_from_the_files_of_a_folder(tmp_path):
    config, row = recipe(tmp_path), ROW["ternausnet16"]
    assert encoder_start(cell_config(config, row)) == "random"
    assert encoder_start(cell_config(config, ROW["lwanet"])) == "ImageNet"
    with pytest.raises(ValueError, match="0 files vgg16"):
        cell_config(config, row, str(tmp_path))
    (tmp_path / "vgg16-397923af.pth").touch()
    (tmp_path / "vgg16_bn-6c64b313.pth").touch()
    cell = cell_config(config, row, str(tmp_path))
    assert cell.model.pretrained == str(tmp_path / "vgg16-397923af.pth")
    assert encoder_start(cell) == "ImageNet"
    without = dataclasses.replace(config, model=ModelConfig(pretrained="none"))
    assert encoder_start(cell_config(without, ROW["lwanet"])) == "random"


def test_unknown_rows_are_named():
    assert [row.key for row in chosen("table1", ("raunet",))] == ["raunet"]
    with pytest.raises(ValueError, match="--methods raunet: table2a has base, ela"):
        chosen("table2a", ("raunet",))


def test_finished_cells_are_not_trained_again(tmp_path, trained):
    row, flags = ROW["lwanet"], RunFlags(fold="all")
    cell = cell_config(recipe(tmp_path), row)
    assert tables.scores_of(cell, row, flags) == {}
    assert tables.train_row(cell, row, flags, tmp_path) == 0
    assert trained.asked == [("x_lwanet", fold, 0) for fold in range(4)]
    assert tables.train_row(cell, row, RunFlags(fold="all", repeat=2), tmp_path) == 0
    assert trained.asked[4:] == [("x_lwanet", fold, 1) for fold in range(4)]
    scores = tables.scores_of(cell, row, flags)
    assert scores["runs"] == 4
    assert scores["miou"] == pytest.approx(100 * (0.25 + 1.5 / 8))
    assert scores["protocols"]["ternaus"]["dice"] == pytest.approx(scores["mdice"])


def test_rows_with_memories_share_the_single_frame_stage(tmp_path, trained):
    stages = (
        StageConfig("one", 3, train="single_frame"),
        StageConfig("two", 2, train="memory"),
    )
    config = dataclasses.replace(recipe(tmp_path), train=TrainConfig(stages=stages))
    for row in TABLES["table2a"]:
        cell, flags = cell_config(config, row), RunFlags(repeat=2)
        assert tables.train_row(cell, row, flags, tmp_path) == 0
        assert tables.scores_of(cell, row, flags)["runs"] == 2
    names = ["x_base", "x_single_frame", "x_ela", "x_aga", "x_dmnet"]
    assert sorted(trained.asked) == sorted(
        (n, 0, seed) for n in names for seed in (0, 1)
    )
    assert trained.asked.index(("x_single_frame", 0, 0)) < trained.asked.index(
        ("x_ela", 0, 0)
    )
    first, run = parts(cell, row)
    assert [stage.train for stage in first.resolved_stages] == ["single_frame"]
    assert run.resolved_stages == stages[1:]
    assert run.train.start_from == str(first.run_directory)
    assert parts(run, row) == (run,)


def test_failed_training_ends_the_table(tmp_path, trained):
    row = ROW["lwanet"]
    trained.status = 2
    cell = cell_config(recipe(tmp_path), row)
    assert tables.train_row(cell, row, RunFlags(fold="all"), tmp_path) == 2
    assert len(trained.asked) == 1


def test_stop_request_is_forwarded_once(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(tables, "TRAIN", (str(script),))
    assert tables.train_process(tmp_path / "x.json") == 143


def test_rows_are_trained_by_the_installed_command(tmp_path, capfd):
    assert tables.train_process(tmp_path / "x.json") == 2
    assert "x.json: no such config file" in capfd.readouterr().err


def test_unmeasured_cells_stay_empty(tmp_path, capsys):
    (tmp_path / "recipe.py").write_text(
        "from dmnet_jax.config import *\n"
        "def get_config(): return Config(name='x', data=DataConfig(size=(64, 96)))\n"
    )
    arguments = ["--config", str(tmp_path / "recipe.py"), "--workdir", str(tmp_path)]
    methods = ["--no-train", "--rounds", "0", "--methods", "ternausnet16", "tapnet11"]
    assert main(["table1", *arguments, *methods]) == 0
    folder = tmp_path / "x_tables"
    printed = capsys.readouterr().out
    assert (folder / "table1.md").read_text().strip() in printed
    with (folder / "table1.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["paper_miou"] == "33.78" and first["miou"] == first["ms"] == ""
    assert float(first["parameters_M"]) == pytest.approx(32.202568)
    assert second["paper_parameters_M"] == "" and second["runs"] == ""
    rows = json.loads((folder / "table1.json").read_text())["rows"]
    assert "miou" not in rows[0] and rows[0]["encoder"] == "random"


def test_mistakes_are_one_error_line(capsys):
    for arguments, message in (
        ([], "must be one of table1, table2a, table2b"),
        (["table1", "--methods", "unet"], "--methods unet: table1 has ternausnet16"),
        (["table2b", "--rounds", "-1"], "--rounds is -1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


class OneLayer(ComparedNetwork):
    @nn.compact
    def update(self, memory, frames, *, train=False):
        return memory, nn.Conv(self.num_classes, (1, 1))(frames / 255)


def test_networks_take_turns():
    small = {"a": OneLayer(3), "b": OneLayer(4)}
    times = frame_times(small, (32, 32), 3)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
    timing = summary(np.array([1.0, 2.0, 3.0]))
    assert (timing["ms"], timing["fps"], timing["p50_ms"]) == (2.0, 500.0, 2.0)
