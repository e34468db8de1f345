"""A step gives the same numbers on one device, several, and several processes."""

import os
import socket
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from dmnet_jax import parallel, training
from dmnet_jax.checkpoint.host_arrays import to_host
from tests.support.parallel_worker import two_batches
from tests.support.tiny_run import ROOT, linear, network, plain_step, shallow, step_of
from tests.support.toy import toy_state, toy_step


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


def fresh():
    return training.create_state(network()[1], linear(), key=jax.random.key(3))


def two_steps(step, state, shard=lambda batch: batch):
    all_metrics = []
    for batch in two_batches():
        state, metrics = step(state, shard(batch))
        all_metrics.append(jax.device_get(metrics))
    return state, all_metrics


@pytest.fixture(scope="module")
def mapped():
    """State before and after two steps on all devices, and their metrics."""
    begin = parallel.place_replicated(fresh())
    step = parallel.data_parallel(step_of("all", parallel.AXIS))
    return begin, *two_steps(step, begin, parallel.shard_batch)


def assert_same(one, other):
    (state, metrics), (state2, metrics2) = one, other
    for a, b in zip(metrics, metrics2, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=2e-5)
        np.testing.assert_allclose(a["grad_norm"], b["grad_norm"], rtol=1e-3)
        assert a["rows"] == b["rows"] == 4
        # Rounding may flip pixels whose two best classes are tied.
        assert np.abs(a["counts"] - b["counts"]).max() <= 8
        np.testing.assert_array_equal(a["counts"][:, 2], b["counts"][:, 2])
    assert int(state.step) == int(state2.step) == 2
    for collection in ("params", "batch_stats"):
        trees = state.variables[collection], state2.variables[collection]
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), *trees)
    start = network()[1]["params"]
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(),
        start,
        jax.device_get(state.variables["params"]),
    )
    assert max(jax.tree.leaves(moved)) > 2e-3  # far more than the tolerance


def test_pmap_on_four_devices_equals_one_device(mapped):
    assert jax.local_device_count() == 4
    assert_same(two_steps(plain_step("all"), fresh()), mapped[1:])


def test_shard_map_on_four_devices_equals_one_device():
    """Uses a toy network, since a step of DMNet takes a minute to compile."""
    mesh = Mesh(np.array(jax.local_devices()), (parallel.AXIS,))
    step = jax.jit(
        jax.shard_map(
            toy_step(parallel.AXIS, whole=False),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec(parallel.AXIS)),
            out_specs=PartitionSpec(),
            check_vma=False,
        ),
    )
    single = jax.jit(toy_step(None, whole=False))
    states, metrics = zip(
        *(two_steps(f, toy_state(3)) for f in (step, single)), strict=True
    )
    assert_close(
        *(dict(to_host(s)[0]) | named(m) for s, m in zip(states, metrics, strict=True))
    )


def named(metrics):
    return {f"metrics{i}/{k}": v for i, m in enumerate(metrics) for k, v in m.items()}


def assert_close(arrays, expected):
    """Compares loss, gradients (as momentum), statistics and metrics."""
    assert set(arrays) == set(expected)
    for name, value in expected.items():
        if value is None:
            assert arrays[name] is None
        elif name.endswith("counts"):
            assert np.abs(arrays[name] - value).max() <= 8
        else:
            np.testing.assert_allclose(
                arrays[name], value, rtol=1e-4, atol=1e-6, err_msg=name
            )


def test_two_processes_of_two_devices_equal_one_device(tmp_path):
    """Compares loss, gradients (as momentum), statistics, metrics, and stopping."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": "2",
    }
    command = [
        sys.executable,
        "-m",
        "tests.support.parallel_worker",
        tmp_path / "results.npz",
    ]
    workers = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment, "JAX_PROCESS_ID": str(index)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=300)
        assert worker.returncode == 0, error
    state, metrics = two_steps(jax.jit(toy_step(None, whole=False)), toy_state(3))
    arrays = dict(to_host(state)[0]) | named(metrics)
    with np.load(tmp_path / "results.npz") as results:
        assert_close(dict(results), {n: x for n, x in arrays.items() if x is not None})


def test_missing_cluster_variables_are_reported(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    parallel.initialize(False)

    def unknown(**arguments):
        assert set(arguments.values()) == {None}
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", unknown)
    with pytest.raises(ValueError, match="--distributed: .*JAX_PROCESS_ID"):
        parallel.initialize(True)


def test_all_devices_hold_bit_identical_states(mapped):
    _, state, _ = mapped
    state = state.replace(key=jax.random.key_data(state.key))
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4, path
        for shard in shards:
            assert shard.shape == leaf.shape, path
            assert shard.tobytes() == shards[0].tobytes(), path


def test_state_is_donated(mapped):
    begin, _, _ = mapped
    params = jax.tree.leaves(begin.variables["params"])
    assert all(leaf.is_deleted() for leaf in params)


def test_shard_batch_keeps_rows_in_order():
    batch = {"x": np.arange(24).reshape(8, 3)}
    sharded = parallel.shard_batch(batch)["x"]
    assert sharded.shape == (4, 2, 3)
    np.testing.assert_array_equal(sharded.reshape(8, 3), batch["x"])


def test_a_batch_size_that_does_not_divide_is_rejected():
    assert parallel.local_batch_size(8) == 2
    with pytest.raises(ValueError) as error:
        parallel.local_batch_size(6)
    message = str(error.value)
    assert "train.batch_size is 6" in message and "multiple of 4" in message
    assert "\n" not in message


def test_device_keys_differ_by_step_and_device_and_no_axis_is_device_0():
    key = jax.random.key(0)
    devices = np.arange(4)

    def draw(step, axis):
        device_key = partial(parallel.device_key, key, step, axis)
        if axis is None:
            return [jax.random.key_data(device_key())]
        keys = jax.vmap(lambda _: device_key(), axis_name=axis)(devices)
        return list(jax.random.key_data(keys))

    keys = [np.asarray(k).tobytes() for k in [*draw(0, "batch"), *draw(1, "batch")]]
    assert len(set(keys)) == 8
    assert [np.asarray(k).tobytes() for k in draw(1, "batch")] == keys[4:]
    assert [np.asarray(k).tobytes() for k in draw(0, None)] == keys[:1]
