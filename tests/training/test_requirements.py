"""The estimate of what a run needs, and the heartbeat while it compiles."""

import time
from dataclasses import replace
from functools import partial

import jax
import pytest

from data_pipelines.frames import resize_frames
from dmnet_jax import models, process, training
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.training import requirements
from dmnet_jax.training.feature_cache import cache_features
from dmnet_jax.training.initial import RUNS_ONCE, initial_variables
from dmnet_jax.training.stages import build_stages
from tests.support.random_variables import random_variables
from tests.support.tiny_run import Videos, shallow, tiny_config
from tests.support.toy import use_toy_networks


@pytest.fixture(scope="module")
def run():
    """(config, stages, network, variables) of the toy network."""
    config = tiny_config()
    config = replace(config, data=replace(config.data, size=(128, 128)))
    source = resize_frames(Videos((4, 4)), config.data.size)
    with use_toy_networks():
        network = models.build(config)
        variables = jax.device_get(initial_variables(network, config))
    return config, build_stages(source, config), network, variables


def test_memory_estimate_is_close_to_that_of_the_compiled_step(run):
    config, stages, network, variables = run
    (stage,) = (stage for stage in stages if stage.part == "all")
    with use_toy_networks():
        estimate = requirements.stage_requirements(stage, network, variables, config)
    tx = training.make_optimizer(config.optim, stage)
    state = training.create_state(variables, tx, key=jax.random.key(0))
    model = network.clone(axis_name=None)
    step = partial(training.train_step, model=model, tx=tx, optim=config.optim)
    lowered = jax.jit(step).lower(state, stage.loader.batch(0))
    compiled = lowered.compile(RUNS_ONCE)
    measured = compiled.memory_analysis().temp_size_in_bytes
    assert measured / 3 < estimate.memory < 3 * measured
    half = replace(config, train=replace(config.train, batch_size=2))
    smaller = build_stages(stage.loader.source, half)[-1]
    with use_toy_networks():
        less = requirements.stage_requirements(smaller, network, variables, half)
    assert 0.4 < less.memory / estimate.memory < 0.7


@pytest.mark.parametrize(
    ("recipe", "memories"),
    [
        ("clip", {}),
        ("rollout", {"local": "none", "global_memory": False, "state": True}),
    ],
    ids=["features", "decoded_sequences"],
)
def test_a_cached_stage_costs_what_is_left_of_its_step(tmp_path, recipe, memories):
    config = tiny_config()
    config = replace(
        config,
        data=replace(config.data, size=(64, 64)),
        train=replace(config.train, rollout_frames=4),
    )
    source = resize_frames(Videos((3, 2)), config.data.size)
    stage = replace(build_stages(source, config)[-1], part="memory")
    if recipe == "rollout":
        spec = replace(stage.loader.spec, local_size=3, num_past=0, score_all=True)
        stage.loader.spec = spec
    stage = replace(stage, recipe=recipe)
    network = DMNet.tiny(config.data.num_classes, **memories)
    key = jax.random.key(0)
    memory = network.init_memory(1, (64, 64), key)
    frames = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), "uint8")
    variables = random_variables(jax.eval_shape(network.init, key, memory, frames))

    cached = replace(stage, cached_views=2, corrupted_views=1)
    whole = requirements.stage_requirements(stage, network, variables, config)
    left = requirements.stage_requirements(cached, network, variables, config)
    assert whole.encoding == 0
    # Without a cache, a step encodes each frame of its clips. The cache encodes each of
    # the 5 frames of the videos, in 2 views with 2 versions each.
    per_frame = left.encoding // (5 * 2 * 2)
    clip_frames = 4 * {"clip": 1 + 1 + 2, "rollout": 4}[recipe]
    assert whole.multiply_adds - left.multiply_adds == clip_frames * per_frame

    form = requirements.cached_form(recipe, network)
    frame = jax.ShapeDtypeStruct((1, 64, 64, 3), "uint8")
    maps = jax.eval_shape(partial(network.apply, method=form.method), variables, frame)
    shapes = requirements._cached_batch(cached, form, maps)
    features = tmp_path / "features"
    with (
        shallow(),
        cache_features(cached, features, network, variables, print) as fast,
    ):
        batch = fast.loader.batch(0)
    assert shapes == {
        name: jax.ShapeDtypeStruct(batch[name].shape, batch[name].dtype)
        for name in batch.keys() - {"video", "frame"}
    }


def test_the_estimate_is_printed_and_warns(run, monkeypatch, caplog):
    config, stages, network, variables = run

    def describe(start):
        videos = [Videos((4, 4))]
        with use_toy_networks():
            return requirements.describe(
                stages, network, variables, config, videos=videos, start=start
            )

    line = describe(0)
    assert "a step of 4 clips at 128x128 takes about" in line and "\n" not in line
    assert "8 steps" in line and "compiling comes first" in line
    assert "6 steps" in describe(2)
    assert describe(stages[-1].end) == ""
    assert not caplog.text
    monkeypatch.setattr(requirements, "_available_memory", lambda: 1000)
    assert "(0.0 GB are free)" in describe(0)
    assert "more than is free" in caplog.text and "train.batch_size" in caplog.text
    monkeypatch.setattr(requirements, "_available_memory", lambda: None)
    assert "free" not in describe(0)


def test_the_heartbeat_reports_until_it_is_stopped(monkeypatch):
    monkeypatch.setattr(process, "FIRST_REPORT", 0.01)
    lines = []
    with process.heartbeat(lines.append, "compiling") as stop:
        deadline = time.monotonic() + 5
        while len(lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        stop()
        count = len(lines)
        time.sleep(0.05)
    assert count >= 2 and len(lines) <= count + 1
    assert lines[0].startswith("compiling: 0 s so far")
