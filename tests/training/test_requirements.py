"""What a run needs is told before, and that it lives while it compiles."""

import time
from dataclasses import replace
from functools import partial

import jax
import pytest

from data_pipelines.frames import resize_frames
from dmnet_jax import models, process, training
from dmnet_jax.training import requirements
from dmnet_jax.training.initial import RUNS_ONCE, initial_variables
from dmnet_jax.training.stages import stage_loaders
from tests.support.tiny_run import Videos, tiny_config
from tests.support.toy import use_toy_networks


@pytest.fixture(scope="module")
def run():
    """(config, stages, network, variables) of the toy."""
    config = tiny_config()
    config = replace(config, data=replace(config.data, size=(128, 128)))
    source = resize_frames(Videos((4, 4)), config.data.size)
    with use_toy_networks():
        network = models.build(config)
        variables = jax.device_get(initial_variables(network, config))
    return config, stage_loaders(source, config), network, variables


def test_memory_is_what_a_compiled_step_takes(run):
    config, stages, network, variables = run
    (stage,) = (stage for stage in stages if stage.part == "all")
    with use_toy_networks():
        found = requirements.of_stage(stage, network, variables, config)
    tx = training.make_optimizer(config.optim, stage)
    state = training.create_state(variables, tx, key=jax.random.key(0))
    model = network.clone(axis_name=None)
    step = partial(training.train_step, model=model, tx=tx, optim=config.optim)
    lowered = jax.jit(step).lower(state, stage.loader.batch(0))
    compiled = lowered.compile(RUNS_ONCE)
    taken = compiled.memory_analysis().temp_size_in_bytes
    assert taken / 3 < found.memory < 3 * taken
    half = replace(config, train=replace(config.train, batch_size=2))
    smaller = stage_loaders(stage.loader.source, half)[-1]
    with use_toy_networks():
        less = requirements.of_stage(smaller, network, variables, half)
    assert 0.4 < less.memory / found.memory < 0.7


def test_a_person_is_told_and_warned(run, monkeypatch, caplog):
    config, stages, network, variables = run

    def told(start):
        videos = [Videos((4, 4))]
        with use_toy_networks():
            return requirements.told(
                stages, network, variables, config, videos=videos, start=start
            )

    line = told(0)
    assert "a step of 4 clips at 128x128 takes about" in line and "\n" not in line
    assert "8 steps" in line and "compiling comes first" in line
    assert "6 steps" in told(2)
    assert told(stages[-1].end) == ""
    assert not caplog.text
    monkeypatch.setattr(requirements, "_available", lambda: 1000)
    assert "(0.0 GB are free)" in told(0)
    assert "more than is free" in caplog.text and "train.batch_size" in caplog.text
    monkeypatch.setattr(requirements, "_available", lambda: None)
    assert "free" not in told(0)


def test_there_are_signs_of_life_until_it_is_over(monkeypatch):
    monkeypatch.setattr(process, "FIRST", 0.01)
    said = []
    with process.waiting(said.append, "compiling") as over:
        deadline = time.monotonic() + 5
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        over()
        told = len(said)
        time.sleep(0.05)
    assert told >= 2 and len(said) <= told + 1
    assert said[0].startswith("compiling: 0 s so far")
