"""Everything that knows about devices and processes; nothing else does.

Data parallelism is `jax.pmap` in its modern form: the state has no leading device
axis, goes in whole and comes out whole. That is right only if every output is equal
on all devices, so a step must `pmean` or `psum` whatever it returns.

Several hosts run the same command, one process each, and every process does the same
steps on its own share of a batch. Under Slurm or Open MPI `--distributed` is all:

    srun python train.py --config configs/endovis17.py --data.root DIR --distributed

Elsewhere each process is told where process 0 is, how many there are, and which it is:

    JAX_COORDINATOR_ADDRESS=10.0.0.1:1234 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \\
        python train.py --config configs/endovis17.py --data.root DIR --distributed

docs/several_hosts.md has a whole Slurm script. Only process 0 needs the run directory;
the data must lie at the same path for all.
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
    """Joins the other processes of a job; must precede any other JAX call.

    Does nothing if not asked to, or if joined already.

    Raises:
        ValueError: no cluster is recognised and the three variables are not set.
    """
    if not distributed or jax.distributed.is_initialized():
        return
    given = {
        name: os.environ[name]
        for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        if name in os.environ
    }
    # It would take SIGTERM away from `process.StopRequest`, which all agree on anyway.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=given.get("JAX_COORDINATOR_ADDRESS"),
            num_processes=_number(given.get("JAX_NUM_PROCESSES")),
            process_id=_number(given.get("JAX_PROCESS_ID")),
        )
    except ValueError as error:
        raise ValueError(
            f"--distributed: {error} Run under Slurm or Open MPI, or set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def processes() -> tuple[int, int]:
    """(index of this process, how many there are). Process 0 writes and speaks."""
    return jax.process_index(), jax.process_count()


def from_process_0(tree: Any) -> Any:
    """Process 0's values on all processes; as given where there is but one.

    Args:
        tree: of arrays, typed PRNG keys and numbers, alike in shape everywhere.
    """
    if jax.process_count() == 1:
        return tree

    def is_key(leaf: Any) -> bool:
        return isinstance(leaf, Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )

    raw = jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
    sent = multihost_utils.broadcast_one_to_all(jax.device_get(raw))
    return jax.tree.map(
        lambda x, new: (
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(x))
            if is_key(x)
            else new
        ),
        tree,
        sent,
    )


def ask_all(question: Callable[[], bool]) -> Callable[[], bool]:
    """Asks every process; calling what comes back waits until all have answered.

    Between the two a step can be computed. All processes must ask alike, and all get
    the same answer: whether any said yes. A single process is asked when it is read.
    """
    if jax.process_count() == 1:
        return question
    devices = jax.local_device_count()
    count = _count(np.full(devices, question(), np.int32))
    return lambda: int(count) > 0


@partial(jax.pmap, axis_name=AXIS, out_axes=None)
def _count(flag: Array) -> Array:
    return jax.lax.psum(flag, AXIS)


def data_parallel(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step(state, batch) -> (state, metrics)` on all local devices.

    The state is donated; batch leaves lead with [devices, rows].
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )


def place_replicated(tree: Any) -> Any:
    """Puts a tree on every local device, ready to be donated.

    Donating freshly made host arrays fails on several processes; placed ones do not.
    """
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def local_batch_size(batch_size: int) -> int:
    """Rows that each device gets of a global batch.

    Raises:
        ValueError: the batch does not divide by the number of devices.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise ValueError(
            f"train.batch_size is {batch_size}, which {devices} devices cannot share "
            f"equally; use a multiple of {devices}"
        )
    return batch_size // devices


def shard_batch(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[rows, ...] of this process -> [local devices, rows / devices, ...]."""
    devices = jax.local_device_count()
    return {
        name: x.reshape(devices, x.shape[0] // devices, *x.shape[1:])
        for name, x in batch.items()
    }


def device_key(key: Array, step: Array, axis_name: str | None) -> Array:
    """A key of this step and this device, the first one where there is no axis."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    return jax.random.fold_in(jax.random.fold_in(key, step), device)
