"""Checkpoints: exact values, any devices, which steps are kept, and error messages."""

import json
import os
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dmnet_jax.checkpoint import Checkpoints, load_variables, read_metadata
from dmnet_jax.checkpoint.folder import CheckpointError


class State(struct.PyTreeNode):
    step: jax.Array
    variables: dict
    opt_state: optax.OptState
    key: jax.Array
    count: int
    ratio: float


def make_state(seed=0):
    rng = np.random.default_rng(seed)
    params = {
        "head": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)},
        "half": jnp.asarray(rng.normal(size=5), jnp.bfloat16),
    }
    stats = {"mean": jnp.asarray([0.0, -0.0, np.inf, np.nan, 1e-45], jnp.float32)}
    return State(
        step=jnp.asarray(seed, jnp.int32),
        variables={"params": params, "batch_stats": stats},
        opt_state=optax.adam(1e-3).init(params),
        key=jax.random.key(seed),
        count=2**40 + seed,
        ratio=0.1,
    )


def bits(tree):
    """Returns structure, types, shapes and bytes of a state, for exact comparisons."""

    def leaf(x):
        key = jnp.issubdtype(getattr(x, "dtype", np.int32), jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(x) if key else x)
        return str(getattr(x, "dtype", type(x))), array.shape, array.tobytes()

    return jax.tree.structure(tree), [leaf(x) for x in jax.tree.leaves(tree)]


def saved(run, *steps, metrics=None):
    """Saves a run with the given steps; step n contains `make_state(n)`."""
    with Checkpoints(run) as checkpoints:
        for i, step in enumerate(steps):
            metric = metrics[i] if metrics else None
            meta = {"step": step}
            checkpoints.save(step, make_state(step), metadata=meta, metric=metric)
    return run / "checkpoints"


def restored(run, step="newest", target=None):
    with Checkpoints(run) as checkpoints:
        return checkpoints.restore(target or make_state(99), step=step)


def test_round_trip_is_bit_exact(tmp_path):
    saved(tmp_path, 3)
    step, state, metadata, _ = restored(tmp_path)
    assert (step, metadata) == (3, {"step": 3})
    assert bits(state) == bits(make_state(3))
    assert type(state.count) is int and type(state.ratio) is float
    same = jax.random.normal(state.key, (4,)) == jax.random.normal(
        jax.random.key(3), (4,)
    )
    assert same.all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_of_any_implementation_and_shape(tmp_path, impl):
    keys = {"one": jax.random.key(1, impl=impl)}
    keys["many"] = jax.random.split(keys["one"], (2, 3))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, keys, metadata={})
        again = checkpoints.restore(keys).state
    assert bits(again) == bits(keys)


def test_leaves_that_the_storage_does_not_support(tmp_path):
    state = {"none": jnp.zeros((0, 3)), "scalar": jnp.asarray(True), "nested": [(), {}]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, metadata={})
        assert bits(checkpoints.restore(state).state) == bits(state)
        with pytest.raises(TypeError, match="state leaf name is str"):
            checkpoints.save(1, {"name": "x"}, metadata={})
        with pytest.raises(ValueError, match="contains no numbers"):
            checkpoints.save(1, {"a": jnp.zeros((0,))}, metadata={})


def test_state_may_be_reused_immediately(tmp_path, monkeypatch):
    """Values are saved as they were, even if writing starts after they changed."""
    gate, write = threading.Event(), ocp.Checkpointer.save

    def delayed(*arguments, **keywords):
        assert gate.wait(20)
        return write(*arguments, **keywords)

    monkeypatch.setattr(ocp.Checkpointer, "save", delayed)
    advance = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    state = {"device": jnp.arange(20_000.0), "host": np.arange(20_000.0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, metadata={})
        advance(state["device"]).block_until_ready()
        state["host"] *= 0
        gate.set()
        target = {"device": jnp.zeros(20_000), "host": np.zeros(20_000)}
        again = checkpoints.restore(target).state
    for leaf in again.values():
        np.testing.assert_array_equal(leaf, np.arange(20_000.0))


@pytest.mark.parametrize("devices_before, devices_after", [(4, 1), (1, 4), (4, 2)])
def test_other_device_counts(tmp_path, devices_before, devices_after):
    def replicated(count):
        mesh = Mesh(np.array(jax.devices()[:count]), "d")
        return NamedSharding(mesh, PartitionSpec())

    values = {"w": jnp.arange(12.0).reshape(3, 4), "key": jax.random.key(5)}
    before = jax.device_put(values, replicated(devices_before))
    target = jax.device_put(
        {"w": jnp.zeros((3, 4)), "key": jax.random.key(0)}, replicated(devices_after)
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, before, metadata={})
        again = checkpoints.restore(target).state
    assert bits(again) == bits(values)
    for leaf in jax.tree.leaves(again):
        assert len(leaf.sharding.device_set) == devices_after
    # Replicas must not share memory, or a donating step would write it several times.
    stepped = jax.jit(lambda x: x + 1, donate_argnums=0)(again["w"])
    for shard in stepped.addressable_shards:
        np.testing.assert_array_equal(shard.data, values["w"] + 1)


def test_target_may_be_shapes_only(tmp_path):
    saved(tmp_path, 3)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    state = make_state(3).replace(count=0, ratio=0.0)
    shapes = jax.tree.map(
        lambda x: (
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)
            if isinstance(x, jax.Array)
            else x
        ),
        state,
    )
    again = restored(tmp_path, target=shapes).state
    assert bits(again) == bits(make_state(3))
    assert again.step.sharding == one
    assert again.key.sharding.device_set == {jax.devices()[1]}


def test_newest_and_best_survive_a_worsening_metric(tmp_path):
    folder = saved(tmp_path, 1, 2, 3, 4, metrics=[0.9, 0.8, 0.3, 0.2])
    # The metrics of earlier steps must survive a restart.
    saved(tmp_path, 5, 6, 7, metrics=[0.1, float("nan"), None])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1, 2, 6, 7]
    assert restored(tmp_path).step == 7
    assert restored(tmp_path, "best").step == 1
    assert restored(tmp_path, 2).step == 2
    assert sorted(os.listdir(folder)) == ["1", "2", "6", "7"]


def test_best_needs_a_metric(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(CheckpointError, match="no checkpoint has a metric"):
        restored(tmp_path, "best")


def test_steps_only_go_forward(tmp_path):
    saved(tmp_path, 5)
    with Checkpoints(tmp_path) as checkpoints:
        assert read_metadata(tmp_path) == {"step": 5}
        with pytest.raises(CheckpointError, match="step 4 is behind the saved step 5"):
            checkpoints.save(4, make_state(4), metadata={})


def test_the_newest_step_may_be_replaced(tmp_path):
    """This happens after validation, when the score is known."""
    folder = saved(tmp_path, 4, 5)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make_state()).metric is None
        checkpoints.save(5, make_state(6), metadata={"again": 1}, metric=0.5)
        assert checkpoints.restore(make_state()).metric == 0.5
    step, state, metadata, _ = restored(tmp_path, "best")
    assert (step, metadata) == (5, {"again": 1})
    assert bits(state) == bits(make_state(6))
    assert sorted(os.listdir(folder)) == ["4", "5"]


def test_an_interrupted_replacement_leaves_the_old_step(tmp_path, monkeypatch):
    folder = saved(tmp_path, 4, 5)
    rename = Path.rename

    def interrupted(path, target):
        if path.parent.name == "incoming":
            raise OSError("killed")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, make_state(6), metadata={"again": 1})
    with pytest.raises(CheckpointError, match="5 was not saved"):
        checkpoints.close()
    assert sorted(os.listdir(folder)) == ["4", "trash"]
    monkeypatch.undo()
    step, state, *_ = restored(tmp_path)
    assert step == 5 and bits(state) == bits(make_state(5))
    assert sorted(os.listdir(folder)) == ["4", "5"]


def test_missing_checkpoints_are_reported(tmp_path):
    for read in (restored, read_metadata, load_variables):
        with pytest.raises(CheckpointError, match="no checkpoint here"):
            read(tmp_path / "empty")
    saved(tmp_path, 1, 2)
    with pytest.raises(CheckpointError, match="no step 7; saved steps: 1, 2"):
        restored(tmp_path, 7)


def test_readers_need_no_target_and_change_nothing(tmp_path):
    folder = saved(tmp_path, 1, 2, metrics=[0.9, 0.1])
    (folder / "incoming" / "9.orbax-checkpoint-tmp").mkdir(parents=True)
    variables, metadata = load_variables(tmp_path, "best")
    assert metadata == {"step": 1} == read_metadata(tmp_path, "best")
    assert load_variables(tmp_path)[1] == {"step": 2}
    assert read_metadata(tmp_path) == {"step": 2} == read_metadata(tmp_path, 2)
    assert bits(variables) == bits(make_state(1).variables)
    assert isinstance(variables["params"]["half"], np.ndarray)
    assert load_variables(tmp_path, 2)[1] == {"step": 2}
    assert (folder / "incoming" / "9.orbax-checkpoint-tmp").exists()
    (folder / "2" / "meta" / "metadata").unlink()
    assert read_metadata(tmp_path) == {"step": 1}
    assert (folder / "2").exists()


def test_load_variables_needs_variables(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"w": jnp.ones(2)}, metadata={})
    with pytest.raises(CheckpointError, match="the state has no `variables`"):
        load_variables(tmp_path, "newest")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"w": jnp.zeros((3, 5))}, r"a/w is saved as float32\[3, 4\].* float32\[3, 5"),
        ({"w": jnp.zeros((3, 4), jnp.int32)}, r"a/w .* float32\[3, 4\].* int32\[3, 4"),
        ({"key": jax.random.key(0, impl="rbg")}, r"a/key is saved as key<fry>\[2\]"),
        ({"new": jnp.zeros(1)}, "lacks a/new, which"),
        ({"new": jnp.zeros(1), "x": jnp.zeros(1)}, "lacks a/new and 1 more, which"),
        ({"w": None}, "has a/w, which this state lacks"),
    ],
)
def test_the_error_names_the_leaf_that_does_not_match(tmp_path, change, message):
    state = {"w": jnp.zeros((3, 4)), "key": jax.random.key(0)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"a": state}, metadata={})
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoints.restore({"a": {**state, **change}})
        assert "\n" not in str(caught.value)
        assert checkpoints.steps() == [0]


def test_metadata_is_saved_as_json(tmp_path):
    metadata = {"config": json.dumps({"a": 1}), "iou": [0.1, float("nan")], "é": None}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, make_state(), metadata=metadata | {"tuple": (1, 2)})
        with pytest.raises(TypeError):
            checkpoints.save(1, make_state(), metadata={"a": object()})
    again = read_metadata(tmp_path)
    assert repr(again) == repr(metadata | {"tuple": [1, 2]})


def test_a_run_directory_that_is_not_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoints(tmp_path / "file")
