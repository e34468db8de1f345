"""All commands load the same network from a run."""

import dataclasses
import inspect
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax import models
from dmnet_jax.checkpoint import Checkpoints, load_variables, read_metadata, runs
from dmnet_jax.checkpoint.runs import PRETRAINED, load_run, output_folder
from dmnet_jax.cli import evaluate
from dmnet_jax.config import to_json
from dmnet_jax.experiments import zero_shot
from dmnet_jax.export import __main__ as export
from dmnet_jax.live import __main__ as live
from dmnet_jax.predict import __main__ as predict
from dmnet_jax.streaming import Session
from tests.support import tiny_run

ABOUT = {
    "config": json.loads(to_json(tiny_run.tiny_config())),
    "classes": [{"name": name, "color": [9, 9, 9]} for name in tiny_run.CLASSES],
    "train_videos": ["one"],
    "val_videos": ["two"],
}


class OneNumber(nn.Module):
    """A network with a single parameter."""

    num_classes: int = 3

    @nn.nowrap
    def init_memory(self, *_):
        return {}

    @nn.compact
    def __call__(self, memory, frames):
        return memory, self.param("step", nn.initializers.zeros, (1,), jnp.int32)


@pytest.fixture(autouse=True)
def one_number(monkeypatch):
    build = models.build

    def build_tiny(config):
        return OneNumber() if config.name == "tiny" else build(config)

    monkeypatch.setattr(models, "build", build_tiny)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"step": np.zeros(2)}, "params/step is [2], expected [1]"),
        ({}, "params/step is missing, expected [1]"),
        (
            {"step": np.zeros(1), "x": np.zeros((3, 4))},
            "params/x is [3, 4], expected none",
        ),
    ],
)
def test_weights_of_another_network_are_rejected(tmp_path, params, message):
    with Checkpoints(tmp_path) as checkpoints:
        state = {"variables": {"params": params, "other": {"x": np.zeros(1)}}}
        checkpoints.save(0, state, metadata=ABOUT)
    with pytest.raises(ValueError, match="do not match its config") as caught:
        load_run(tmp_path)
    assert message in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with three steps, of which the second has the best score."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder) as checkpoints:
        for step, metric in enumerate((0.1, 0.9, 0.2)):
            state = {"variables": {"params": {"step": np.full(1, step)}}}
            checkpoints.save(step, state, metadata=ABOUT, metric=metric)
    return folder


@pytest.mark.parametrize(
    ("which", "step"), [((), 2), (("newest",), 2), (("best",), 1), ((1,), 1)]
)
def test_load_run(run, which, step):
    loaded = load_run(run, *which)
    assert loaded.variables["params"]["step"].tolist() == [step]
    assert loaded.model.num_classes == 3 and loaded.config == tiny_run.tiny_config()
    assert loaded.about == ABOUT


@pytest.mark.parametrize(
    "function", [load_run, load_variables, read_metadata, Session.from_checkpoint]
)
def test_functions_load_the_newest_by_default(function):
    parameters = inspect.signature(function).parameters
    assert (parameters.get("which") or parameters["step"]).default == "newest"


@pytest.mark.parametrize("command", [evaluate, predict, live, export, zero_shot])
def test_commands_load_the_newest_by_default(command):
    flags = {field.name: field.default for field in dataclasses.fields(command.Flags)}
    assert flags["which"] == "newest"


def test_a_session_loads_the_newest_by_default(run, monkeypatch):
    loaded = []

    def stop(model, variables, **_):
        loaded.append(variables["params"]["step"].tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr("dmnet_jax.streaming.session.compile", stop)
    with pytest.raises(KeyboardInterrupt):
        Session.from_checkpoint(run)
    with pytest.raises(KeyboardInterrupt):
        Session.from_checkpoint(run, which="best")
    assert loaded == [[2], [1]]


def test_the_shipped_network_is_loaded_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_run(PRETRAINED)
    assert shipped.config.data.dataset == "rendered"
    assert shipped.model.num_classes == len(shipped.about["classes"]) == 4
    alone = load_run(PRETRAINED, memory=False).model
    assert shipped.model.state and alone == shipped.model.single_frame()
    scaled = load_run(PRETRAINED, scales=[0.75, 1.5]).model
    assert scaled == shipped.model.clone(scales=(0.75, 1.5))


@pytest.mark.parametrize(
    ("run", "folder"),
    [("a/run", "a/run"), ("a/x.safetensors", "a/x"), ("rendered",) * 2],
)
def test_results_are_written_beside_a_file(run, folder):
    assert output_folder(run) == Path(folder)


@pytest.mark.parametrize(
    "damage",
    [
        {"config": None},
        {"config": {"model": 3}},
        {"classes": None},
        {"classes": ABOUT["classes"][:1]},
        {"classes": [{"name": "a\x1b[31m", "color": [9, 9, 9]}] * 3},
        {"classes": [{"name": 3, "color": [9, 9, 9]}] * 3},
        {"classes": [{"name": "a", "color": [9, 9, 900]}] * 3},
        {"classes": [{"name": "a", "color": "red"}] * 3},
        {"classes": ["a", "b", "c"]},
    ],
)
def test_invalid_metadata_gives_a_one_line_error(damage, monkeypatch):
    monkeypatch.setattr(runs, "load_variables", lambda *_: ({}, ABOUT | damage))
    with pytest.raises(ValueError, match="RUN: the metadata .* is invalid") as caught:
        load_run("RUN")
    assert "\n" not in str(caught.value)
