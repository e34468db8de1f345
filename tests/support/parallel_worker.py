"""One of several processes that train two steps together, for test_parallel.py.

The command `parallel_worker.py OUT` joins the other processes like `--distributed`.
Process 0 writes the metrics and the leaves of the state to OUT.
"""

import sys

import jax
import numpy as np

from dmnet_jax import parallel
from dmnet_jax.checkpoint.host_arrays import to_host
from tests.support.tiny_run import clips
from tests.support.toy import toy_state, toy_step


def two_batches() -> list[dict[str, np.ndarray]]:
    """Returns two different batches of four clips."""
    batches = [clips(), {name: x[::-1] for name, x in clips().items()}]
    batches[1]["label"] = np.roll(batches[1]["label"], 5, axis=2)
    return batches


def main() -> None:
    parallel.initialize(True)
    parallel.initialize(True)  # the second call has no effect
    process, processes = parallel.processes()
    state = toy_state(3 + process)  # replaced by that of process 0
    state = parallel.place_replicated(parallel.from_process_0(state))
    step = parallel.data_parallel(toy_step(parallel.AXIS, whole=False))
    rows = 4 // processes
    results = {}
    for number, batch in enumerate(two_batches()):
        local = {n: x[process * rows :][:rows] for n, x in batch.items()}
        state, metrics = step(state, parallel.shard_batch(local))
        answer = parallel.any_process(lambda number=number: process == number == 1)
        assert answer() == (number == 1), "all processes learn of a stop request"
        results |= {f"metrics{number}/{k}": v for k, v in metrics.items()}
    if process == 0:
        results = {k: v for k, v in jax.device_get(results).items() if v is not None}
        np.savez(sys.argv[1], **results, **to_host(state)[0])


if __name__ == "__main__":
    main()
