"""A running training job: its checkpoints, records and stop requests.

Every process of a job has a `Run` and calls the same methods. Only process 0 reads and
writes the run directory.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from data_pipelines.frames import FrameSource
from data_pipelines.io.files import write_text
from dmnet_jax import parallel
from dmnet_jax.checkpoint import Checkpoints, read_metadata
from dmnet_jax.checkpoint.compatibility import (
    check_data,
    check_resume,
    environment_changes,
)
from dmnet_jax.checkpoint.provenance import validated_config
from dmnet_jax.config import Config, to_json
from dmnet_jax.evaluation import CHUNK, Prediction
from dmnet_jax.evaluation.results import results_are_written
from dmnet_jax.process import Stopped, StopRequest, run_lock
from dmnet_jax.training.run_log import RunLog
from dmnet_jax.training.step import TrainState
from dmnet_jax.training.tensorboard import Board

_log = logging.getLogger(__name__)


class Run:
    """A context manager that locks and writes a run directory.

    The context swallows `Stopped`, the exception that ends a run early.

        with Run(config, run_dir, stop, about, total_steps=900) as run:
            start, state, scored = run.restore(state)

    Args:
        config: config of the run.
        folder: the run directory; created if missing.
        stop: set when the run should stop.
        about: result of `provenance.describe`, saved in every checkpoint.
        total_steps: number of steps of all stages.

    Raises:
        RunInUseError: another process uses the directory.
        RunGoneError: while saving, if the directory was deleted or replaced.
        ConfigError: the directory contains a different run.
        CheckpointError: the checkpoints in the directory are unusable.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        stop: StopRequest,
        about: dict[str, Any],
        *,
        total_steps: int,
    ):
        self.config, self.folder, self.total = config, folder, total_steps
        self.process, _ = parallel.processes()
        self._stop, self._about = stop, about
        self._resources = ExitStack()
        self._checkpoints = self._log = self._board = self._lock = None
        if self.process == 0:
            with ExitStack() as stack:
                self._lock = stack.enter_context(run_lock(folder))
                self._checkpoints = stack.enter_context(Checkpoints(folder))
                self._check()
                self._resources = stack.pop_all()

    def _check(self) -> None:
        """Rejects the checkpoints of a different run; warns of another environment."""
        assert self._checkpoints is not None
        if self._checkpoints.steps():
            saved = read_metadata(self.folder)
            check_resume(validated_config(saved, self.folder), self.config)
            check_data(saved, self._about)
            changes = environment_changes(saved, self._about)
            if changes:
                _log.warning(
                    "%s: %s; resuming, but the results will not be bit-identical to an "
                    "uninterrupted run",
                    self.folder,
                    "; ".join(changes),
                )
        write_text(self.folder / "config.json", to_json(self.config) + "\n")

    def restore(
        self, state: TrainState, estimate: Callable[[int], str] = lambda step: ""
    ) -> tuple[int, TrainState, bool]:
        """Restores the newest checkpoint, or returns `state` if there is none.

        Args:
            state: initial state of a new run.
            estimate: returns a text on the memory and time that the run needs from a
                step on; printed.

        Returns:
            The step, the state (on this process's default device or the host), and
            whether the validation at that step is done.
        """
        step, scored = 0, False
        if self._checkpoints is not None:
            if self._checkpoints.steps():
                step, state, _, metric = self._checkpoints.restore(state)
                scored = metric is not None
            self._log = RunLog(
                self.folder, step=step, scored=scored, total_steps=self.total
            )
            self._resources.callback(self._log.close)
            if self.config.train.tensorboard:
                self._board = Board(self.folder, step=step)
                self._resources.callback(self._board.close)
        step, scored, state = parallel.from_process_0((step, scored, state))
        begin = f"resuming at step {step}" if step else "starting"
        if self._log is not None:
            text = estimate(int(step))
            self.print(f"{self.folder}: {begin}" + (f"; {text}" if text else ""))
        return int(step), state, bool(scored)

    def save(self, step: int, state: TrainState, *, score: float | None = None) -> None:
        """Starts writing a checkpoint. Records of `step` must be written before."""
        if self._checkpoints is not None and self._log is not None:
            self.check_exists()
            self._log.sync()
            self._checkpoints.save(step, state, metadata=self._about, metric=score)

    def wait_until_saved(self) -> None:
        """Blocks until the last checkpoint is on disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()
            self.check_exists()

    def check_exists(self) -> None:
        """Checks that the run directory still exists.

        Raises:
            RunGoneError: the directory was deleted or replaced.
        """
        if self._lock is not None:
            self._lock.check()

    def has_results(self, variables: Any) -> bool:
        """Returns whether the results of these variables are written."""
        return bool(
            parallel.from_process_0(
                self.process == 0 and results_are_written(self.folder, variables)
            )
        )

    def record(self, step: int, **values: Any) -> None:
        """Records values that are reproducible, in metrics.jsonl and TensorBoard."""
        if self._log is not None:
            self.check_exists()
            self._log.record(step, **values)
        self.log_scalars(step, **values)

    def log_scalars(self, step: int, **values: Any) -> None:
        """Shows values such as speeds in TensorBoard only."""
        if self._board is not None:
            self._board.add_scalars(step, values)

    def show_progress(self, step: int, text: str) -> None:
        """Updates the progress line."""
        if self._log is not None:
            self._log.progress(step, text)

    def print(self, text: str) -> None:
        """Prints a line."""
        if self._log is not None:
            self._log.print(text)

    def stopping(self) -> bool:
        """Returns whether a stop was requested in any process.

        All processes must call this at the same point.
        """
        return parallel.any_process(lambda: self._stop.requested)()

    def start_stop_check(self) -> Callable[[], bool]:
        """Starts a check for stop requests; see `parallel.any_process`.

        Returns:
            A function that waits for the result, as `stopping` returns it.
        """
        return parallel.any_process(lambda: self._stop.requested)

    def raise_if_stopping(self, video: int, result: Prediction) -> None:
        """Checks for stop requests once per chunk; for `evaluate` and `calibrate`.

        Raises:
            Stopped: a stop was requested in any process.
        """
        if result.frame % CHUNK == 0:
            self.check_stop()

    def check_stop(self) -> None:
        """Raises Stopped if a stop was requested in any process."""
        if self.stopping():
            raise Stopped

    def log_predictions(
        self, step: int, source: FrameSource, video: int, result: Prediction
    ) -> None:
        """Shows the last frame of each video in TensorBoard."""
        last = result.frame == len(source.videos[video].frames) - 1
        if self._board is not None and last:
            self._board.add_prediction(step, source, video, result)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        stopped = isinstance(error, Stopped)
        if stopped:
            self._stop.request()
            self.print("stopped; run the same command again to resume")
        self._resources.close()
        return stopped
