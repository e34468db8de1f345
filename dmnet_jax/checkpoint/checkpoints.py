"""Saving, restoring and loading of checkpoints with Orbax.

This is the only module that uses Orbax. A run has folders `RUN/checkpoints/STEP/`, each
complete or absent: Orbax writes to a temporary folder and renames it. In addition,
every array and the metadata have a SHA-256 digest, because Orbax returns flipped bits
without an error. A checkpoint that does not match its digests is never used; the next
intact one is.

The state is saved as host arrays, so it can be restored on any number of devices. Of
several processes, only one opens `Checkpoints`; `parallel.from_process_0` sends the
restored state to the others.
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
    DamagedError,
    Which,
    candidates,
    clear_leftovers,
    damaged_steps,
    list_steps,
    prune,
    publish,
    read_bodies,
    read_body,
    remove_incoming,
    seal,
    set_aside,
    short_reason,
)
from dmnet_jax.checkpoint.host_arrays import fill_target, flatten, nest, to_host, verify

_FOLDER = "checkpoints"
# Upper bound of the size of a checkpoint without its arrays.
_METADATA_BYTES = 1 << 20
_PROCESS_0 = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A restored step.

    Attributes:
        step: the step that was read; older than requested if that one is damaged.
        state: the saved values, in the structure of the target.
        metadata: the metadata passed to `Checkpoints.save`.
        metric: the metric passed to `Checkpoints.save`; None without one.
    """

    step: int
    state: Any
    metadata: dict[str, Any]
    metric: float | None


class Checkpoints:
    """The checkpoints of a run, for the process that writes them.

    Keeps the newest two and the two with the largest metric. Opening cleans up after an
    interrupted process, so hold `run_lock` around it.

        with run_lock(run_dir), Checkpoints(run_dir) as checkpoints:
            checkpoints.save(100, state, metadata={"config": ...}, metric=0.61)
            step, state, metadata, metric = checkpoints.restore(state)

    Args:
        run_dir: the run directory; created if missing.

    Raises:
        CheckpointError: the folder cannot be created or written to.
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
                f"{self._directory}: cannot be written ({short_reason(error)})"
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
            step: number of steps taken, >= 0 and at least the newest saved step. If
                equal, the saved step is replaced once the new one is complete.
            state: pytree of arrays, typed PRNG keys and Python numbers, fully
                addressable in this process (on one device or replicated).
            metadata: a JSON-serializable dict.
            metric: larger is better; a checkpoint with None or NaN is never "best".

        Raises:
            CheckpointError: an earlier save failed, or a later step exists.
            TypeError: a leaf is not an array, or `metadata` is not serializable.
            ValueError: `state` contains no numbers.
        """
        self.wait()
        newest = max(list_steps(self._directory), default=-1)
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
        # Converted through JSON, so that the digest is of the values that are read.
        body = json.loads(json.dumps(body))
        self._pending = step, self._pool.submit(self._write, step, arrays, body)

    def restore(self, target: Any, *, step: int | Which = "newest") -> Restored:
        """Restores a checkpoint into the structure of `target`.

        A damaged step is skipped with a warning and moved to `checkpoints/damaged`; the
        next one is used. A step that is requested by number has no substitute.

        Args:
            target: pytree like the saved one. Arrays and `jax.ShapeDtypeStruct`s define
                shape, dtype and sharding; values are ignored. Not donated.
            step: "newest", "best" (largest metric) or a number.

        Raises:
            CheckpointError: there is no intact checkpoint, or it does not match
                `target`; names the leaf.
        """
        self.wait()
        damaged: dict[int, str] = {}
        body, arrays = _first_intact(self._directory, step, _read_all, damaged)
        number = body["step"]
        try:
            state = fill_target(arrays, body["leaves"], target)
        except (ValueError, LookupError, TypeError) as error:
            path = self._directory / str(number)
            raise CheckpointError(f"{path}: {error}") from error
        for damaged_step, reason in damaged.items():
            set_aside(self._directory, damaged_step, reason)
        return Restored(number, state, body["metadata"], body["metric"])

    def steps(self) -> list[int]:
        """Returns the saved steps with intact metadata, oldest first.

        Raises:
            CheckpointError: every saved step is damaged. Starting from scratch could
                destroy steps that can be repaired by hand.
        """
        steps = [body["step"] for body in read_bodies(self._directory)]
        damaged = damaged_steps(self._directory)
        if not steps and damaged:
            raise CheckpointError(
                f"{self._directory}: nothing can be resumed: every saved step is "
                f"damaged (in {self._directory / 'damaged'}: {', '.join(damaged)}); to "
                "start from scratch, remove that folder or choose another run directory"
            )
        return steps

    def wait(self) -> None:
        """Blocks until the last save is on disk.

        Raises:
            CheckpointError: the save failed; earlier checkpoints are intact.
        """
        if self._pending is None:
            return
        (step, future), self._pending = self._pending, None
        try:
            future.result()
        except Exception as error:
            newest = max(list_steps(self._directory), default=None)
            rest = "no step is saved" if newest is None else f"step {newest} is intact"
            reason = short_reason(error)
            raise CheckpointError(
                f"{self._directory}: step {step} was not saved ({reason}); {rest}"
            ) from error

    def close(self) -> None:
        """Waits for the last save and ends the writer thread."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, step: int, arrays: dict[str, Any], body: dict[str, Any]) -> None:
        # Checked first: on a full disk, threads of Orbax's storage print stack traces
        # that cannot be caught. Weights do not compress, so the size is known.
        size = sum(np.asarray(array).nbytes for array in arrays.values())
        if shutil.disk_usage(self._directory).free < size + _METADATA_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=_PROCESS_0)
        )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nest(arrays)),
            meta=ocp.args.JsonSave(seal(body)),
        )
        incoming = self._directory / INCOMING
        # Orbax's threads log hundreds of lines for an error before it is raised.
        logger = logging.getLogger("absl")
        logger.addFilter(_not_of_a_thread)
        try:
            # Orbax's asynchronous checkpointer leaves a thread waiting for minutes if
            # a save fails. This one fails immediately, in our own thread.
            with ocp.Checkpointer(
                handler, multiprocessing_options=_PROCESS_0
            ) as checkpointer:
                checkpointer.save(incoming / str(step), args=items)
            # Older steps are deleted only after the new one has been read back.
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
    """Reads the metadata of a checkpoint, without its arrays.

    Args:
        run_dir: the run directory.
        step: "newest", "best" (largest metric) or a number.

    Raises:
        CheckpointError: there is no such checkpoint with intact metadata.
    """
    directory = Path(run_dir).absolute() / _FOLDER
    return _first_intact(directory, step, read_body, {})["metadata"]


def load_variables(
    run_dir: str | os.PathLike[str], which: int | Which = "newest"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the variables of a run's network.

    Nothing is changed on disk, so this may be called while the run is training.

    Args:
        run_dir: the run directory.
        which: "newest", "best" (largest metric) or a step.

    Returns:
        The state's `variables` as nested dicts of NumPy arrays, and the metadata.

    Raises:
        CheckpointError: there is no intact checkpoint, its state has no `variables`, or
            a threshold of its memory is NaN.
    """
    directory = Path(run_dir).absolute() / _FOLDER
    body, arrays = _first_intact(directory, which, _read_all, {})
    path = directory / str(body["step"])
    try:
        tree = nest(arrays)
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: a name is both a leaf and a group") from error
    if not isinstance(tree.get("variables"), dict):
        raise CheckpointError(f"{path}: the state has no `variables`")
    for name, value in (tree["variables"].get("thresholds") or {}).items():
        if np.isnan(value).any():
            raise CheckpointError(
                f"{path}: the threshold {name} is NaN, so the memory would admit no "
                f"frame; set model.{name} and train the last stage again"
            )
    return tree["variables"], body["metadata"]


def _first_intact(
    directory: Path,
    which: int | Which,
    read: Callable[[Path, int], _T],
    damaged: dict[int, str],
) -> _T:
    """Reads the first intact step; adds the others to `damaged`, with reasons."""
    for step in candidates(directory, which):
        try:
            return read(directory, step)
        except DamagedError as error:
            damaged[step] = str(error)
            _log.warning(
                "%s: step %d is damaged and not used: %s", directory, step, error
            )
    reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
    raise CheckpointError(f"{directory}: no intact checkpoint ({reasons})")


def _read_all(
    directory: Path, step: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads the body and the arrays of a step.

    Raises:
        DamagedError: the metadata or an array is not as saved.
    """
    body = read_body(directory, step)
    path = epath.Path(directory / str(step) / "state")
    try:
        tree = ocp.PyTreeCheckpointHandler().restore(path)
        stored = {name: np.asarray(leaf) for name, leaf in flatten(tree).items()}
        return body, verify(stored, body["leaves"])
    except Exception as error:
        # Orbax and its storage raise many types of errors for corrupt files.
        reason = short_reason(error)
        raise DamagedError(f"its arrays cannot be read: {reason}") from error
