"""The command `python -m dmnet_jax.export`, on a run directory."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from dmnet_jax import models
from dmnet_jax.checkpoint import Checkpoints, load_variables, runs
from dmnet_jax.checkpoint.provenance import describe
from dmnet_jax.checkpoint.runs import TrainedRun, load_run
from dmnet_jax.config import ModelConfig
from dmnet_jax.datasets import open_split
from dmnet_jax.export import int8
from dmnet_jax.export.__main__ import _record, main
from dmnet_jax.export.calibration import of_folder, spread_frames
from dmnet_jax.models.adaptation import FRAMES, adapt
from dmnet_jax.streaming import Session
from dmnet_jax.weights.files import read_metadata, read_weights
from dmnet_jax.weights.layout import flatten
from tests.support import tiny_run
from tests.support.random_variables import random_variables

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory as training leaves it, though nothing was trained."""
    folder = tmp_path_factory.mktemp("export")
    tiny_run.write_videos(folder / "videos")
    config = tiny_run.tiny_config()
    data = dataclasses.replace(config.data, root=str(folder / "videos"))
    workdir = str(folder / "whole")
    config = dataclasses.replace(config, data=data, workdir=workdir)
    with tiny_run.shallow(), Checkpoints(config.run_directory) as checkpoints:
        about = describe(config, *open_split(data))
        state = {"variables": tiny_run.network()[1]}
        checkpoints.save(1, state, metadata=about, metric=0.5)
    return config.run_directory


@pytest.fixture(autouse=True)
def shallow():
    with tiny_run.shallow():
        yield


def test_jax_export_is_checked_written_and_runs(run, tmp_path, capsys):
    arguments = ["--checkpoint", str(run), "--format", "jax", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "model.jax" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("model.jax", "model.jax.json", "model.jax.sha256", "parity.json")
    ]
    parity = json.loads((tmp_path / "parity.json").read_text())["model.jax"]
    assert parity["passed"] and parity["frames"] == 64 and parity["wraps"] >= 1
    with Session.from_artifact(tmp_path / "model.jax") as session:
        result = session.step(tiny_run.picture(0)[0])
        assert result.status == "ok" and result.labels.shape == (64, 64)


def test_onnx_step_is_scored_too(run, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    videos = run.parents[2] / "videos"
    arguments = ["--checkpoint", str(run), "--format", "onnx", "--out", str(tmp_path)]
    assert main([*arguments, "--labeled", str(videos)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("model.onnx", "model.onnx.json", "model.onnx.sha256", "parity.json")
    ]
    for file in tmp_path.iterdir():
        assert str(run.parents[2]).encode() not in file.read_bytes()
    parity = json.loads((tmp_path / "parity.json").read_text())["model.onnx"]
    assert parity["passed"] and parity["computed_in"] == "fp32"
    assert abs(parity["miou_network"] - parity["miou_exported"]) <= 0.002
    with Session.from_artifact(tmp_path / "model.onnx") as session:
        assert session.step(tiny_run.picture(0)[0]).labels.shape == (64, 64)


def test_gate_counts_scores_and_allows_bfloat16_rounding():
    from dmnet_jax.export.parity import Parity

    good = {"frames": 64, "resets": 1, "wraps": 1}
    turned = Parity(**good, label_mismatch=0.03, label_errors=9, decisions_differ=2)
    assert Parity(**good).passed() and turned.passed("bf16") and not turned.passed()
    lost = Parity(**good, miou_network=0.5, miou_exported=0.49)
    assert not lost.passed() and not lost.passed("bf16")


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (["--format", "jax", "--dtype", "bf16"], "needs --format openvino"),
        (["--format", "onnx", "--labeled", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_invalid_requests_are_one_error_line(run, tmp_path, capsys, mistake, message):
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", str(run), "--out", str(tmp_path), *mistake])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_step_that_differs_is_not_written(run, tmp_path, monkeypatch, capsys):
    from dmnet_jax.export import parity

    worse = parity.Parity(frames=64, resets=1, wraps=1, label_errors=3)
    monkeypatch.setattr(parity, "compare", lambda *_: worse)
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", str(run), "--format", "jax", "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert "label_errors=3" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["parity.json"]


@pytest.mark.parametrize("left", ["", "{", "[1]", "[" * 5000])
def test_damaged_report_is_rewritten(tmp_path, capsys, left):
    path = tmp_path / "parity.json"
    path.write_text(left)
    _record(path, "model.jax", {"passed": True})
    _record(path, "model.onnx", {"passed": True})
    assert sorted(json.loads(path.read_text())) == ["model.jax", "model.onnx"]
    assert [file.name for file in tmp_path.iterdir()] == ["parity.json"]
    error = capsys.readouterr().err
    assert f"{path} was damaged" in error and error.count("\n") == 1


def test_safetensors_hold_the_variables_and_the_config(run, tmp_path):
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    path = tmp_path / "model.safetensors"
    variables, about = load_variables(run)
    written = read_weights(path)
    for name, array in flatten(variables).items():
        np.testing.assert_array_equal(written.pop(name), array)
    assert not written
    excluded = json.loads(read_metadata(path)["about"])["config"]
    assert excluded["model"] == about["config"]["model"]
    assert str(run.parents[2]).encode() not in path.read_bytes()
    assert (tmp_path / "model.safetensors.sha256").is_file()


def test_a_safetensors_file_opens_like_the_run(run, tmp_path):
    main(["--checkpoint", str(run), "--format", "safetensors", "--out", str(tmp_path)])
    path = tmp_path / "model.safetensors"
    masks = []
    for checkpoint in (run, path):
        with Session.from_checkpoint(checkpoint) as session:
            frames = [tiny_run.picture(index)[0] for index in range(3)]
            masks.append([session.step(frame).labels for frame in frames])
    np.testing.assert_array_equal(*masks)
    # Results are written beside the file, and a file can be exported again.
    main(["--checkpoint", str(path), "--format", "safetensors"])
    again = tmp_path / "model" / "export" / "model.safetensors"
    for name, array in read_weights(path).items():
        np.testing.assert_array_equal(read_weights(again)[name], array)


def test_adapts_to_unlabeled_video_before_the_export(run, tmp_path, capsys):
    videos = str(run.parents[2] / "videos")
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    main([*arguments, "--out", str(tmp_path), "--adapt", videos])
    assert "adapted to 16 frames of videos, without labels" in capsys.readouterr().out
    assert load_run(tmp_path / "model.safetensors").about["adapted"].startswith("adap")
    before = load_run(run)
    size = before.config.data.size
    frames = spread_frames(of_folder(videos, size), FRAMES)
    expected = flatten(adapt(before.model, before.variables, frames))
    written = flatten(load_run(tmp_path / "model.safetensors").variables)
    for name, array in expected.items():
        np.testing.assert_allclose(written[name], array, rtol=1e-5, atol=1e-6)
    changed = [
        name
        for name, array in flatten(before.variables).items()
        if not np.array_equal(array, written[name])
    ]
    assert changed and all(name.startswith("batch_stats/") for name in changed)
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path), "--adapt", str(tmp_path / "none")])
    assert capsys.readouterr().err.startswith("error:")


def stateful(run, **fields):
    """Returns a network whose state is not trained, but differs from a fresh one."""
    fields = {"local": "none", "global_memory": False, "state": True} | fields
    config = dataclasses.replace(load_run(run).config, model=ModelConfig(**fields))
    model = models.build(config)
    memory = model.init_memory(1, (64, 64), KEY)
    shapes = jax.eval_shape(model.init, KEY, memory, np.zeros((1, 1, 64, 64, 3)))
    return TrainedRun(model, random_variables(shapes), config, {})


def test_a_network_gets_the_state_of_another_one(run, tmp_path, monkeypatch, capsys):
    trained, source = load_run(run), stateful(run)

    def load(name, *options):
        return source if name == "other" else load_run(name, *options)

    monkeypatch.setattr(runs, "load_run", load)
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    main([*arguments, "--out", str(tmp_path), "--state", "other"])
    path = tmp_path / "model.safetensors"
    added = load_run(path)
    assert added.config.model.local == trained.config.model.local != "none"
    assert added.about["state_from"] == source.config.name
    assert added.config.model.state_parts == source.config.model.state_parts
    given = flatten(trained.variables)
    for name, array in flatten(source.variables).items():
        if name.startswith("params/prediction_state/"):
            given[name] = array
    written = flatten(added.variables)
    assert written.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(written[name], array)
    with Session.from_checkpoint(path) as session:
        result = [session.step(tiny_run.picture(index)[0]) for index in range(2)]
    assert [frame.status for frame in result] == ["ok", "ok"]


def with_noise(trained, seed):
    """Returns the network with weights scaled at random, named "noise SEED"."""
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda x: (x * rng.uniform(0.5, 2, np.shape(x))).astype(np.float32),
        trained.variables,
    )
    config = dataclasses.replace(trained.config, name=f"noise {seed}")
    return trained._replace(variables=variables, config=config)


def test_weights_are_averaged_over_runs(run, tmp_path, monkeypatch):
    trained = load_run(run)
    others = {f"noise {seed}": with_noise(trained, seed) for seed in (0, 1)}
    monkeypatch.setattr(
        runs, "load_run", lambda name, *options: others.get(name) or trained
    )
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    main([*arguments, "--out", str(tmp_path), "--average", *others])
    mean = load_run(tmp_path / "model.safetensors")
    assert mean.about["averaged_with"] == ["noise 0, seed 0", "noise 1, seed 0"]
    given = [flatten(network.variables) for network in (trained, *others.values())]
    for name, array in flatten(mean.variables).items():
        expected = sum(np.float64(leaves[name]) for leaves in given) / 3
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-7)


def test_a_run_is_averaged_once(run, tmp_path, capsys):
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path), "--average", str(run)])
    assert "error: --average: a run is named twice" in capsys.readouterr().err


def test_other_architectures_are_not_averaged(run, tmp_path, monkeypatch, capsys):
    other = stateful(run)
    monkeypatch.setattr(
        runs, "load_run", lambda name, *_: other if name == "other" else load_run(name)
    )
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path), "--average", "other"])
    message = capsys.readouterr().err
    assert "--average: other: " in message and "same architecture" in message
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state": False}, "error: --state: other has no prediction state"),
    ],
)
def test_states_that_cannot_be_added_are_errors(
    run, tmp_path, monkeypatch, capsys, fields, message
):
    source = stateful(run, **fields)
    monkeypatch.setattr(
        runs, "load_run", lambda name, *_: source if name == "other" else load_run(name)
    )
    arguments = ["--checkpoint", str(run), "--format", "safetensors"]
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path), "--state", "other"])
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("calibrate", "expected"), [("", "adapt"), ("other", "other")])
def test_int8_is_calibrated_on_what_the_network_is_adapted_to(
    run, tmp_path, monkeypatch, capsys, calibrate, expected
):
    videos = run.parents[2] / "videos"
    folders = {name: tmp_path / name for name in ("adapt", "other")}
    for folder in folders.values():
        folder.symlink_to(videos)
    monkeypatch.setattr(int8, "check", lambda *options: None)

    def find_sources(trained, size, labeled, calibrate):
        raise ValueError(f"calibrated on {calibrate}")

    monkeypatch.setattr(int8, "find_sources", find_sources)
    arguments = ["--checkpoint", str(run), "--format", "openvino", "--dtype", "int8"]
    arguments += ["--out", str(tmp_path), "--adapt", str(folders["adapt"])]
    if calibrate:
        arguments += ["--calibrate", str(folders[calibrate])]
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"calibrated on {folders[expected]}" in capsys.readouterr().err


def test_mistakes_are_one_error_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", str(tmp_path), "--format", "jax"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error:") and message.count("\n") == 1


def test_help_does_not_import_jax():
    code = (
        "import sys; from dmnet_jax.export.__main__ import _record, main\n"
        "try: main(['--help'])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("not a medical device") == 1
