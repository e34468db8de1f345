"""The int8 step: its layers, its calibration data, and the gate before writing."""

import contextlib
import dataclasses
import gc
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import pytest

from dmnet_jax.checkpoint import Checkpoints
from dmnet_jax.checkpoint.provenance import describe
from dmnet_jax.datasets import open_split
from dmnet_jax.export import calibration, int8, int8_gate, quantization
from dmnet_jax.export.__main__ import main
from dmnet_jax.models.protocol import Memories
from dmnet_jax.streaming import Session, load_artifact, runtimes
from dmnet_jax.streaming.described import read_description
from dmnet_jax.streaming.program import Interface, Labeled, Program
from tests.support import signal_stack, tiny_run

HAS_ALL = all(map(importlib.util.find_spec, ("onnx", "openvino", "nncf")))
needs_all = pytest.mark.skipif(not HAS_ALL, reason="needs the extra openvino")

SIZE = (64, 64)
VIDEOS = tiny_run.Videos((6,), frozenset({2}))
SEEN = calibration.Calibration(
    [calibration.Clip(6, lambda: (tiny_run.picture(k)[0] for k in range(6)))], "squares"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory as training leaves it, though nothing was trained."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_run.tiny_config()
    root = str(tiny_run.write_videos(folder / "videos"))
    data = dataclasses.replace(config.data, root=root)
    config = dataclasses.replace(config, data=data, workdir=str(folder / "whole"))
    with tiny_run.shallow(), Checkpoints(config.run_directory) as checkpoints:
        about = describe(config, *open_split(data))
        state = {"variables": tiny_run.network()[1]}
        checkpoints.save(1, state, metadata=about, metric=0.5)
    return config.run_directory


class Exported(NamedTuple):
    """The files and output of the command, and the float32 step that it quantized."""

    path: Path
    out: str
    err: str
    float32: Path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The result of one run of the command; fast bias correction saves seconds."""
    folder, quantize = tmp_path_factory.mktemp("int8"), int8.quantize

    def copied(float32, *rest):
        shutil.copytree(float32.parent, folder / "float32")
        return quantize(float32, *rest)

    out, err, result = io.StringIO(), io.StringIO(), folder / "out"
    flags = ["--checkpoint", str(run), "--format", "openvino", "--dtype", "int8"]
    with (
        tiny_run.shallow(),
        mock.patch.object(quantization, "FAST_BIAS_CORRECTION", True),
        mock.patch.object(int8, "quantize", copied),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert main([*flags, "--max-drop", "0.5", "--out", str(result)]) == 0
    path = result / "model-int8.xml"
    return Exported(
        path, out.getvalue(), err.getvalue(), folder / "float32" / "model.xml"
    )


def report_of(path):
    return json.loads(path.with_name(f"{path.name}.json").read_text())["quantization"]


def contents_of(path):
    return {
        suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")
    }


@needs_all
def test_command_calibrates_int8_on_the_videos_of_the_run(exported, run):
    folder = exported.path.parent
    assert exported.out.count("\n") == 1 and "model-int8.xml" in exported.out
    assert "calibrating on 6 frames of training videos one" in exported.err
    beside = [f"model-int8.xml{x}" for x in ("", ".json", ".sha256")]
    names = ["model-int8.bin", *beside, "parity.json"]
    assert sorted(file.name for file in folder.iterdir()) == names
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["model.xml"]["passed"] and parity["model.xml"]["frames"] == 64
    report = parity["model-int8.xml"]
    assert report == report_of(exported.path) and report["videos"] == ["two"]
    assert report["inputs"] == 6 and report["given_back"] == []
    assert report["frames"] == 6 and report["labelled"] == 6
    assert report["drop"] == report["miou_float32"] - report["miou_int8"] <= 0.5
    assert 0 < report["label_mismatch"] < 0.2
    for file in folder.iterdir():
        content = file.read_bytes()
        assert str(run.parents[2]).encode() not in content and b"/tmp/" not in content
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


@needs_all
def test_int8_artifact_runs_like_any_other(exported):
    with Session.from_artifact(exported.path) as session:
        for index in range(4):
            result = session.step(tiny_run.picture(index)[0])
            assert result.status == "ok" and result.labels is not None
            assert result.labels.shape == SIZE and result.labels.max() < 3


@needs_all
def test_signals_can_be_handled_after_programs_end(exported):
    """Ctrl-C killed processes in which OpenVINO's cores ended out of order."""
    assert signal_stack.is_usable()  # after the quantization
    programs = [load_artifact(exported.path) for _ in range(2)]
    while programs:  # the older one first
        programs.pop(0)
        gc.collect()
        assert signal_stack.is_usable()


@needs_all
def test_only_layers_after_the_first_are_quantized(exported):
    """Scores, gates, counters, rings and the first layer keep their precision."""
    model = quantization.read_model(contents_of(exported.path))
    rounded = {
        target.get_node().get_type_name()
        for operation in model.get_ops()
        if operation.get_type_name() == "FakeQuantize"
        for target in operation.output(0).get_target_inputs()
    }
    allowed = {"Convolution", "GroupConvolution", "Add", "MaxPool", "Interpolate"}
    assert "Convolution" in rounded and rounded <= allowed
    everything = [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    quantized = quantization.layers(model)
    assert everything[0] not in quantized
    assert len(quantized) == report_of(exported.path)["layers"] > 0.9 * len(everything)


@pytest.fixture
def requantized(exported, monkeypatch):
    """Quantizing again returns the existing model; the excluded layers are recorded."""
    contents, exclusions = contents_of(exported.path), []

    def again(float32, inputs, excluded=()):
        exclusions.append(list(excluded))
        return quantization.read_model(contents), contents

    monkeypatch.setattr(quantization, "quantized", again)
    return exclusions


@needs_all
def test_layers_with_the_largest_loss_return_to_float32(
    exported, requantized, monkeypatch
):
    layers, whole, result = quantization.layers, int8_gate.gate, []

    def strict(*programs):
        result.append(whole(*programs))
        worse = dataclasses.replace(result[-1], miou_float32=1.0, miou_int8=0.9)
        return result[-1] if len(result) > 2 else worse

    monkeypatch.setattr(int8, "gate", strict)
    monkeypatch.setattr(quantization, "layers", lambda model: layers(model)[:3])
    path, report = int8.quantize(exported.float32, SEEN, VIDEOS, max_drop=0.05)
    assert requantized == [[], requantized[2][:1], requantized[2]]
    assert report["given_back"] == requantized[2] and len(requantized[2]) == 2
    assert report_of(path)["given_back"] == requantized[2]
    assert set(requantized[2]) < set(quantization.layers(_model(exported)))


def _model(exported):
    return quantization.read_model(contents_of(exported.path))


@needs_all
def test_layers_are_ranked_by_changed_labels(exported, monkeypatch):
    """A classifier whose input is quantized to zero changes the most labels."""
    from openvino import opset13  # pyright: ignore[reportMissingImports]

    model, names = _model(exported), quantization.layers(_model(exported))
    spoiled = next(
        operation
        for operation in model.get_ordered_ops()
        if operation.get_friendly_name() in names
        and operation.output(0).get_shape()[1] == 3
    )
    chosen = [*names[:2], spoiled.get_friendly_name()]
    rounding = spoiled.input_value(0).get_node()
    rounding.input(4).replace_source_output(opset13.constant(np.float32(0)).output(0))
    rounding.input(3).replace_source_output(opset13.constant(np.float32(0)).output(0))
    monkeypatch.setattr(quantization, "layers", lambda model: chosen)
    program = load_artifact(exported.float32)
    inputs = calibration.Rolled(program, described(exported.float32), SEEN)
    ranked = quantization.ranked(contents_of(exported.float32), model, inputs)
    assert ranked[0] == chosen[2] and sorted(ranked) == sorted(chosen)


def described(path):
    body = path.with_name(f"{path.name}.json").read_bytes()
    return read_description(body, ".xml")


@needs_all
def test_too_large_a_loss_is_refused_with_both_scores(
    exported, requantized, monkeypatch, recwarn, capsys
):
    monkeypatch.setattr(int8, "GIVEN_BACK", (0,))
    for module in (int8, runtimes):
        monkeypatch.setattr(module, "computes_int8", lambda: False)
    with pytest.raises(int8.Int8Error, match="--max-drop is -2") as caught:
        int8.quantize(exported.float32, SEEN, VIDEOS, max_drop=-2)
    assert not recwarn.list  # reported in one line, without an additional warning
    assert capsys.readouterr().err.count("int8 step may be slower") == 1
    error = str(caught.value)
    assert "float32 has 0." in error and "int8 0." in error and "\n" not in error
    assert "--calibrate" in error and "--dtype bf16" in error and len(requantized) == 1


@needs_all
@pytest.mark.soak
def test_excluded_layers_are_not_quantized(exported):
    program = load_artifact(exported.float32)
    inputs = calibration.Rolled(program, described(exported.float32), SEEN)
    excluded = quantization.layers(_model(exported))[5:7]
    model, _ = quantization.quantized(contents_of(exported.float32), inputs, excluded)
    left = quantization.layers(model)
    assert len(left) == report_of(exported.path)["layers"] - 2
    assert not set(excluded) & set(left)


def scripted(labels, confidence, admitted):
    """A program that gives these outputs for every frame."""

    def step(memory, frames, active, reset):
        decision, zero = np.full(1, admitted(memory)), np.zeros(1)
        message: Any = labels[None], None, np.full(1, confidence), zero, decision, None
        return memory + 1, Labeled(*message)

    interface = Interface(SIZE, 1, 3, SIZE)
    return Program(interface, lambda key: 0, step, memories=Memories(True, True))


def test_the_gate_counts_labels_scores_and_decisions():
    truth = tiny_run.picture(0)[1]
    spoiled = truth.copy()
    spoiled[:32] = 0

    class Still(tiny_run.Videos):
        def label(self, video, frame):
            return None if frame in self.unlabeled else truth

    right = scripted(truth, -0.5, lambda k: True)
    wrong = scripted(spoiled, -0.25, lambda k: k > 1)
    result = int8_gate.gate(right, wrong, Still((3, 2), frozenset({0})))
    assert (result.frames, result.labeled, result.admitted) == (5, 3, 5)
    assert result.decisions_differ == 4 and result.confidence_error == 0.25
    assert result.label_mismatch == pytest.approx((spoiled != truth).mean())
    assert result.miou_float32 == 1 and result.drop > 0.5
    assert "4 of 5 decisions" in result.summary()
    with pytest.raises(ValueError, match="labeled videos has a label"):
        int8_gate.gate(right, wrong, tiny_run.Videos((2,), frozenset({0, 1})))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (["--format", "onnx", "--dtype", "int8"], "needs --format openvino"),
        (["--calibrate", "x", "--format", "openvino"], "needs --dtype int8"),
        (["--dtype", "int8", "--calibrate", "nowhere"], "nowhere: no such file"),
        (["--dtype", "int8", "--max-drop", "nan"], "--max-drop nan: must be a number"),
    ],
)
def test_mistakes_are_one_error_line(tmp_path, capsys, mistake, message):
    flags = ["--checkpoint", "nowhere", "--out", str(tmp_path / "out")]
    flags += [] if "--format" in mistake else ["--format", "openvino"]
    with pytest.raises(SystemExit) as stopped:
        main([*flags, *mistake])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_missing_nncf_names_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    if not HAS_ALL:
        monkeypatch.setitem(sys.modules, "openvino", sys)
    with pytest.raises(SystemExit) as stopped:
        main(["--checkpoint", "x", "--format", "openvino", "--dtype", "int8"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert 'nncf is not installed; pip install -e ".[openvino]"' in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("missing", ["train", "val"])
def test_missing_videos_error_names_the_flag(run, missing):
    from dmnet_jax.checkpoint.runs import load_run

    with tiny_run.shallow():
        trained = load_run(run)
    gone = dataclasses.replace(trained.config.data, root="/nowhere")
    trained = trained._replace(config=dataclasses.replace(trained.config, data=gone))
    labeled = VIDEOS if missing == "train" else None
    flag = {"train": "--calibrate DIR", "val": "--labeled DIR"}[missing]
    with pytest.raises(ValueError, match=flag):
        int8.find_sources(trained, SIZE, labeled, "")


@needs_all
def test_session_warns_where_int8_may_be_slow(exported, monkeypatch):
    monkeypatch.setattr(runtimes, "computes_int8", lambda: False)
    monkeypatch.setattr(runtimes, "has_bf16", lambda: False)
    with pytest.warns(UserWarning, match="int8 step may be slower"):
        program = load_artifact(exported.path)
    memory = program.init_memory(jax.random.key(0))
    _, out = program.step(memory, tiny_run.picture(0)[0][None])
    assert np.asarray(out.labels).shape == (1, *SIZE)
