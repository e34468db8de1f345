"""One run is one network, whoever opens it."""

import dataclasses
import inspect
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax import models
from dmnet_jax.checkpoint import Checkpoints, load_variables, read_metadata, runs
from dmnet_jax.checkpoint.runs import PRETRAINED, load_run
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
    """As small as a network gets."""

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

    def built(config):
        return OneNumber() if config.name == "tiny" else build(config)

    monkeypatch.setattr(models, "build", built)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"step": np.zeros(2)}, "params/step is [2], expected [1]"),
        ({}, "params/step is missing, expected [1]"),
        (
            {"step": np.zeros(1), "x": np.zeros((3, 4))},
            "params/x is [3, 4], expected none",
        ),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, params, told):
    with Checkpoints(tmp_path) as checkpoints:
        state = {"variables": {"params": params, "other": {"x": np.zeros(1)}}}
        checkpoints.save(0, state, metadata=ABOUT)
    with pytest.raises(ValueError, match="do not fit its config") as refused:
        load_run(tmp_path)
    assert told in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps, of which the second scored best."""
    folder = tmp_path_factory.mktemp("run")
    with Checkpoints(folder) as checkpoints:
        for step, metric in enumerate((0.1, 0.9, 0.2)):
            state = {"variables": {"params": {"step": np.full(1, step)}}}
            checkpoints.save(step, state, metadata=ABOUT, metric=metric)
    return folder


@pytest.mark.parametrize(
    ("which", "step"), [((), 2), (("newest",), 2), (("best",), 1), ((1,), 1)]
)
def test_a_runs_network(run, which, step):
    opened = load_run(run, *which)
    assert opened.variables["params"]["step"].tolist() == [step]
    assert opened.model.num_classes == 3 and opened.config == tiny_run.tiny_config()
    assert opened.about == ABOUT


@pytest.mark.parametrize(
    "function", [load_run, load_variables, read_metadata, Session.from_checkpoint]
)
def test_functions_open_the_newest(function):
    named = inspect.signature(function).parameters
    assert (named.get("which") or named["step"]).default == "newest"


@pytest.mark.parametrize("command", [evaluate, predict, live, export, zero_shot])
def test_commands_open_the_newest(command):
    flags = {field.name: field.default for field in dataclasses.fields(command.Flags)}
    assert flags["which"] == "newest"


def test_a_session_streams_the_newest(run, monkeypatch):
    opened = []

    def stop(model, variables, **_):
        opened.append(variables["params"]["step"].tolist())
        raise KeyboardInterrupt

    monkeypatch.setattr("dmnet_jax.streaming.session.compile", stop)
    with pytest.raises(KeyboardInterrupt):
        Session.from_checkpoint(run)
    with pytest.raises(KeyboardInterrupt):
        Session.from_checkpoint(run, which="best")
    assert opened == [[2], [1]]


def test_the_word_is_the_shipped_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = load_run(PRETRAINED)
    assert opened.config.data.dataset == "rendered"
    assert opened.model.num_classes == len(opened.about["classes"]) == 4
    alone = load_run(PRETRAINED, memory=False).model
    assert opened.model.state and alone == opened.model.single_frame()


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
def test_damaged_metadata_are_told_in_a_line(damage, monkeypatch):
    monkeypatch.setattr(runs, "load_variables", lambda *_: ({}, ABOUT | damage))
    with pytest.raises(ValueError, match="RUN: its checkpoint does not tell") as caught:
        load_run("RUN")
    assert "\n" not in str(caught.value)
