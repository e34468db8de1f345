"""Devices and processes. No other module of the package depends on their number.

Data parallelism uses `jax.pmap` without a leading device axis for the state: the state
is replicated on input and output. This requires that every output is equal on all
devices, so a step must apply `pmean` or `psum` to everything it returns.

On several hosts, run the same command once per host. Each process takes the same steps
on its own share of a batch. Under Slurm or Open MPI, `--distributed` is sufficient:

    srun python train.py --config configs/endovis17.py --data.root DIR --distributed

Elsewhere, also set the address of process 0, the number of processes, and the index of
each process:

    JAX_COORDINATOR_ADDRESS=10.0.0.1:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \\
        python train.py --config configs/endovis17.py --data.root DIR --distributed

docs/several_hosts.md has a complete Slurm script. Only process 0 needs the run
directory; the data must be at the same path for all processes.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def initialize(distributed: bool) -> None:
    """Connects to the other processes of a job, before any other JAX call.

    Does nothing without `distributed`, or if already connected.

    Raises:
        ValueError: no cluster is detected and the three variables are not set.
    """
    if not distributed or jax.distributed.is_initialized():
        return
    variables = {
        name: os.environ[name]
        for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        if name in os.environ
    }
    # The preemption service would catch SIGTERM instead of `process.StopRequest`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=variables.get("JAX_COORDINATOR_ADDRESS"),
            num_processes=_integer(variables.get("JAX_NUM_PROCESSES")),
            process_id=_integer(variables.get("JAX_PROCESS_ID")),
        )
    except ValueError as error:
        raise ValueError(
            f"--distributed: {error} Run under Slurm or Open MPI, or set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def processes() -> tuple[int, int]:
    """Returns (index of this process, number of processes). Process 0 writes files."""
    return jax.process_index(), jax.process_count()


def from_process_0(tree: Any) -> Any:
    """Broadcasts process 0's values to all processes.

    Args:
        tree: pytree of arrays, typed PRNG keys and numbers, with equal shapes in all
            processes.

    Returns:
        The values of process 0; `tree` itself if there is only one process.
    """
    if jax.process_count() == 1:
        return tree

    def is_key(leaf: Any) -> bool:
        return isinstance(leaf, Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )

    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    received = multihost_utils.broadcast_one_to_all(jax.device_get(raw))
    return jax.tree.map(
        lambda x, new: (
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(x))
            if is_key(x)
            else new
        ),
        tree,
        received,
    )


def any_process(condition: Callable[[], bool]) -> Callable[[], bool]:
    """Starts checking whether a condition holds in any process.

    All processes must call this at the same point. A step can be computed between this
    call and the call of the result.

    Args:
        condition: evaluated now; if there is only one process, when the result is
            called.

    Returns:
        A function that waits for all processes and returns the same value in each.
    """
    if jax.process_count() == 1:
        return condition
    devices = jax.local_device_count()
    count = _sum(np.full(devices, condition(), np.int32))
    return lambda: int(count) > 0


@partial(jax.pmap, axis_name=AXIS, out_axes=None)
def _sum(flag: Array) -> Array:
    return jax.lax.psum(flag, AXIS)


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `step(state, batch) -> (state, metrics)` on all local devices.

    The state is donated. Leaves of the batch have shape [devices, rows, ...].
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )


def place_replicated(tree: Any) -> Any:
    """Replicates a pytree on all local devices, so that it can be donated.

    With several processes, donating host arrays fails.
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_batch_size(batch_size: int) -> int:
    """Returns the number of rows of a global batch per device.

    Raises:
        ValueError: the batch size is not a multiple of the number of devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise ValueError(
            f"train.batch_size is {batch_size}; it must be a multiple of {devices}, "
            "the number of devices"
        )
    return batch_size // devices


def shard_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reshapes [rows, ...] of this process to [local devices, rows / devices, ...]."""
    devices = jax.local_device_count()
    return {
        name: x.reshape(devices, x.shape[0] // devices, *x.shape[1:])
        for name, x in batch.items()
    }


def device_key(key: Array, step: Array, axis_name: str | None) -> Array:
    """Folds the step and the device index into a key; index 0 without an axis."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return jax.random.fold_in(jax.random.fold_in(key, step), device)
