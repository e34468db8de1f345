"""Checkpoints: what training resumes from and what evaluation loads.

The only file that knows Orbax. A run keeps `RUN/checkpoints/STEP/`, each one complete
or absent: Orbax writes beside it and renames. On top of that, every array and the
metadata carry a SHA-256, because Orbax returns flipped bits without an error; a
checkpoint that fails it is never used, the next good one is.

State is written as host arrays, so it restores on any number of devices. Of several
processes one alone opens `Checkpoints`; `parallel.from_process_0` gives the others
what it read.
"""

import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from dmnet_jax.checkpoint.folder import (
    INCOMING,
    CheckpointError,
    Damaged,
    Which,
    bodies,
    candidates,
    clear_leftovers,
    damaged_steps,
    listed,
    prune,
    publish,
    read_body,
    reason_of,
    remove_incoming,
    sealed,
    set_aside,
)
from dmnet_jax.checkpoint.host_arrays import fit, flatten, nest, to_host, verify

_FOLDER = "checkpoints"
# What a checkpoint takes beside its arrays, at most.
_DESCRIPTION_BYTES = 1 << 20
_PROCESS_0 = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A restored step.

    Attributes:
        step: the step that was read, older than the one asked for after damage.
        state: the target's structure with the saved values.
        metadata: what `Checkpoints.save` was given.
        metric: likewise; None if it had none.
    """

    step: int
    state: Any
    metadata: dict[str, Any]
    metric: float | None


class Checkpoints:
    """The checkpoints of one run, for the process that writes them.

    Keeps the newest two and the two with the largest metric. Opening clears what an
    interrupted process left behind, so hold `run_lock` around it.

        with run_lock(run_dir), Checkpoints(run_dir) as checkpoints:
            checkpoints.save(100, state, metadata={"config": ...}, metric=0.61)
            step, state, metadata = checkpoints.restore(state)

    Args:
        run_dir: the run's folder; made if missing.

    Raises:
        CheckpointError: the folder cannot be made or written to.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self._directory = Path(run_dir).absolute() / _FOLDER
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: tuple[int, Future[None]] | None = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self._directory)
        except OSError as error:
            raise CheckpointError(
                f"{self._directory}: cannot be written ({reason_of(error)})"
            ) from error

    def save(
        self,
        step: int,
        state: Any,
        *,
        metadata: dict[str, Any],
        metric: float | None = None,
    ) -> None:
        """Starts writing a checkpoint; returns once `state` may be donated.

        Args:
            step: steps done, >= 0; at least the newest saved. That one is replaced,
                once the new one is complete.
            state: pytree of arrays, typed PRNG keys and Python numbers, whole on this
                process (on one device or replicated).
            metadata: anything JSON holds.
            metric: larger is better; None or NaN is never among the best.

        Raises:
            CheckpointError: an earlier save failed, or a later step exists.
            TypeError: a leaf is no array, or `metadata` no JSON.
            ValueError: `state` holds no numbers at all.
        """
        self.wait()
        newest = max(listed(self._directory), default=-1)
        if step < newest:
            raise CheckpointError(
                f"{self._directory}: step {step} is behind the saved step {newest}; "
                "resume from the newest step or write to another run directory"
            )
        arrays, leaves = to_host(state)
        ranked = metric is not None and math.isfinite(metric)
        body = {
            "step": step,
            "metric": float(metric) if metric is not None and ranked else None,
            "metadata": metadata,
            "leaves": leaves,
        }
        # Through JSON once, so that the digest is of what a reader will see.
        body = json.loads(json.dumps(body))
        self._pending = step, self._pool.submit(self._write, step, arrays, body)

    def restore(self, target: Any, *, step: int | Which = "newest") -> Restored:
        """Reads a checkpoint into the shape of `target`.

        A damaged step is skipped with a warning, set aside in `checkpoints/damaged`,
        and the next one is used; a step asked for by number has no substitute.

        Args:
            target: pytree like the saved one. Arrays and `jax.ShapeDtypeStruct` say
                shape, dtype and sharding; values are ignored. Not donated.
            step: "newest", "best" (largest metric) or a number.

        Raises:
            CheckpointError: no good checkpoint, or it does not fit; names the leaf.
        """
        self.wait()
        bad: dict[int, str] = {}
        body, arrays = _first_good(self._directory, step, _read_all, bad)
        found = body["step"]
        try:
            state = fit(arrays, body["leaves"], target)
        except (ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{self._directory / str(found)}: {error}") from error
        for number, reason in bad.items():
            set_aside(self._directory, number, reason)
        return Restored(found, state, body["metadata"], body["metric"])

    def steps(self) -> list[int]:
        """Saved steps whose metadata is intact, oldest first.

        Raises:
            CheckpointError: steps were saved, and every one of them is damaged. To
                begin anew then would lose what could still be mended by hand.
        """
        found = [body["step"] for body in bodies(self._directory)]
        lost = damaged_steps(self._directory)
        if not found and lost:
            raise CheckpointError(
                f"{self._directory}: nothing can be resumed: every saved step is "
                f"damaged (in {self._directory / 'damaged'}: {', '.join(lost)}); to "
                "begin anew remove that folder or choose another run directory"
            )
        return found

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
            CheckpointError: it failed; earlier checkpoints are untouched.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            newest = max(listed(self._directory), default=None)
            left = "none is saved" if newest is None else f"step {newest} is intact"
            raise CheckpointError(
                f"{self._directory}: step {step} was not saved ({reason_of(error)}); "
                f"{left}"
            ) from error

    def close(self) -> None:
        """Waits for the last save and ends the writing thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, step: int, arrays: dict[str, Any], body: dict[str, Any]) -> None:
        # Asked first: out of space amid its writing, Orbax's storage prints traces from
        # threads that nobody can catch. Arrays of weights do not compress.
        size = sum(np.asarray(array).nbytes for array in arrays.values())
        if shutil.disk_usage(self._directory).free < size + _DESCRIPTION_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=_PROCESS_0)
        )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nest(arrays)),
            meta=ocp.args.JsonSave(sealed(body)),
        )
        incoming = self._directory / INCOMING
        # Orbax's threads tell each error in hundreds of lines before it is raised.
        logger = logging.getLogger("absl")
        logger.addFilter(_not_of_a_thread)
        try:
            # Orbax's own asynchronous writer leaves a thread waiting for minutes when
            # a save fails; this one fails at once, and the thread is ours.
            with ocp.Checkpointer(
                handler, multiprocessing_options=_PROCESS_0
            ) as checkpointer:
                checkpointer.save(incoming / str(step), args=items)
            # Nothing older goes before the new one has been read back.
            _read_all(incoming, step)
            publish(self._directory, step)
        finally:
            logger.removeFilter(_not_of_a_thread)
            remove_incoming(self._directory)
        prune(self._directory)


def _not_of_a_thread(record: logging.LogRecord) -> bool:
    return "_SignalingThread" not in record.getMessage()


def read_metadata(
    run_dir: str | os.PathLike[str], step: int | Which = "newest"
) -> dict[str, Any]:
    """What a checkpoint says of itself, without reading its arrays.

    Args:
        run_dir: the run's folder.
        step: "newest", "best" (largest metric) or a number.

    Raises:
        CheckpointError: no such checkpoint with intact metadata.
    """
    directory = Path(run_dir).absolute() / _FOLDER
    return _first_good(directory, step, read_body, {})["metadata"]


def load_variables(
    run_dir: str | os.PathLike[str], which: int | Which = "newest"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network of a run, for whoever does not train it.

    Changes nothing on disk, so it may run beside the training process.

    Args:
        run_dir: the run's folder.
        which: "newest", "best" (largest metric) or a step.

    Returns:
        The state's sub-tree `variables` as nested dicts of NumPy arrays, and the
        metadata.

    Raises:
        CheckpointError: no good checkpoint, its state has no `variables`, or a
            threshold of its memory is NaN.
    """
    directory = Path(run_dir).absolute() / _FOLDER
    body, arrays = _first_good(directory, which, _read_all, {})
    place = directory / str(body["step"])
    try:
        tree = nest(arrays)
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{place}: a leaf is a group as well") from error
    if not isinstance(tree.get("variables"), dict):
        raise CheckpointError(f"{place}: holds no `variables`")
    for name, value in (tree["variables"].get("thresholds") or {}).items():
        if np.isnan(value).any():
            raise CheckpointError(
                f"{place}: the threshold {name} is NaN, and a memory admits nothing by "
                f"it; set model.{name} and train the last stage again"
            )
    return tree["variables"], body["metadata"]


def _first_good(
    directory: Path,
    which: int | Which,
    read: Callable[[Path, int], _T],
    bad: dict[int, str],
) -> _T:
    """What `read` makes of the first step it finds undamaged; `bad` gets the others."""
    for step in candidates(directory, which):
        try:
            return read(directory, step)
        except Damaged as damage:
            bad[step] = str(damage)
            _log.warning(
                "%s: step %d is damaged and not used: %s", directory, step, damage
            )
    reasons = "; ".join(f"step {step}: {reason}" for step, reason in bad.items())
    raise CheckpointError(f"{directory}: no good checkpoint ({reasons})")


def _read_all(
    directory: Path, step: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Body and arrays of a step, or `Damaged`."""
    body = read_body(directory, step)
    path = epath.Path(directory / str(step) / "state")
    try:
        tree = ocp.PyTreeCheckpointHandler().restore(path)
        stored = {name: np.asarray(leaf) for name, leaf in flatten(tree).items()}
        return body, verify(stored, body["leaves"])
    except Exception as error:
        # Orbax and its storage raise many kinds on bad bytes; all mean the same here.
        raise Damaged(f"its arrays cannot be used: {reason_of(error)}") from error
