"""One of several processes that take two steps together, for test_parallel.py.

As a program, `parallel_worker.py OUT`: joins the others as `--distributed` does, and
process 0 writes the metrics and the state's leaves to OUT.
"""

import sys

import jax
import numpy as np

from dmnet_jax import parallel
from dmnet_jax.checkpoint.host_arrays import to_host
from tests.support.tiny_run import clips
from tests.support.toy import toy_state, toy_step


def two_batches() -> list[dict[str, np.ndarray]]:
    """Batches of four clips that differ."""
    batches = [clips(), {name: x[::-1] for name, x in clips().items()}]
    batches[1]["label"] = np.roll(batches[1]["label"], 5, axis=2)
    return batches


def main() -> None:
    parallel.initialize(True)
    parallel.initialize(True)  # a second time does nothing
    process, processes = parallel.processes()
    state = toy_state(3 + process)  # process 0's is everyone's
    state = parallel.place_replicated(parallel.from_process_0(state))
    step = parallel.data_parallel(toy_step(parallel.AXIS, whole=False))
    rows = 4 // processes
    found = {}
    for number, batch in enumerate(two_batches()):
        mine = {n: x[process * rows :][:rows] for n, x in batch.items()}
        state, metrics = step(state, parallel.shard_batch(mine))
        answer = parallel.any_process(lambda number=number: process == number == 1)
        assert answer() == (number == 1), "all know when one of them is asked to stop"
        found |= {f"metrics{number}/{k}": v for k, v in metrics.items()}
    if process == 0:
        found = {k: v for k, v in jax.device_get(found).items() if v is not None}
        np.savez(sys.argv[1], **found, **to_host(state)[0])


if __name__ == "__main__":
    main()
