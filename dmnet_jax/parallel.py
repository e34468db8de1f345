"""Everything that knows about devices and processes; nothing else does.

Data parallelism is `jax.pmap` in its modern form: the state has no leading device
axis, goes in whole and comes out whole. That is right only if every output is equal
on all devices, so a step must `pmean` or `psum` whatever it returns.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def initialise(enabled: bool) -> None:
    """Joins the other processes of a job; must precede any other JAX call."""
    if enabled:
        jax.distributed.initialize()


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
    """A key of this step and, under an axis, of this device."""
    key = jax.random.fold_in(key, step)
    if axis_name is None:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(axis_name))
