"""A run directory while a run goes on in it: checkpoints, records, and being stopped.

Every process of a job holds a `Run` and calls the same methods; the first alone reads
and writes the directory.
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
from dmnet_jax.checkpoint.provenance import checked
from dmnet_jax.config import Config, to_json
from dmnet_jax.evaluation import CHUNK, Prediction
from dmnet_jax.evaluation.results import are_written
from dmnet_jax.process import Stopped, StopRequest, run_lock
from dmnet_jax.training.run_log import RunLog
from dmnet_jax.training.step import TrainState
from dmnet_jax.training.tensorboard import Board

_log = logging.getLogger(__name__)


class Run:
    """The directory, locked; leaving it on `Stopped` is how a run ends early.

        with Run(config, run_dir, stop, about, total_steps=900) as run:
            start, state, score = run.restore(state)

    Args:
        config: of the run.
        folder: the run directory; made if missing.
        stop: set when the run is to stop.
        about: `provenance.describe`, kept in every checkpoint.
        total_steps: of all stages.

    Raises:
        RunInUseError: another process writes there.
        RunGoneError: when something is saved, if the directory is not there any more.
        ConfigError: what is saved there is another run.
        CheckpointError: what is saved there cannot be used.
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
        self._open = ExitStack()
        self._checkpoints = self._log = self._board = self._lock = None
        if self.process == 0:
            with ExitStack() as opening:
                self._lock = opening.enter_context(run_lock(folder))
                self._checkpoints = opening.enter_context(Checkpoints(folder))
                self._check()
                self._open = opening.pop_all()

    def _check(self) -> None:
        """Refuses to go on with another run; says so if the machine is another."""
        assert self._checkpoints is not None
        if self._checkpoints.steps():
            saved = read_metadata(self.folder)
            check_resume(checked(saved, self.folder), self.config)
            check_data(saved, self._about)
            changes = environment_changes(saved, self._about)
            if changes:
                _log.warning(
                    "%s: %s; going on, but not bit for bit as the run would have",
                    self.folder,
                    "; ".join(changes),
                )
        write_text(self.folder / "config.json", to_json(self.config) + "\n")

    def restore(
        self, state: TrainState, needs: Callable[[int], str] = lambda step: ""
    ) -> tuple[int, TrainState, bool]:
        """What the newest checkpoint holds, or what is given if there is none.

        Args:
            state: of a new run.
            needs: of a step, what the rest of the run needs of this machine; said
                where it begins.

        Returns:
            Step, state on this process's default device or the host, and whether the
            validation at that step is done.
        """
        step, scored = 0, False
        if self._checkpoints is not None:
            if self._checkpoints.steps():
                step, state, _, metric = self._checkpoints.restore(state)
                scored = metric is not None
            self._log = RunLog(
                self.folder, step=step, scored=scored, total_steps=self.total
            )
            self._open.callback(self._log.close)
            if self.config.train.tensorboard:
                self._board = Board(self.folder, step=step)
                self._open.callback(self._board.close)
        step, scored, state = parallel.from_process_0((step, scored, state))
        begins = f"going on at step {step}" if step else "starting"
        if self._log is not None:
            needed = needs(int(step))
            self.say(f"{self.folder}: {begins}" + (f"; {needed}" if needed else ""))
        return int(step), state, bool(scored)

    def save(self, step: int, state: TrainState, *, score: float | None = None) -> None:
        """Starts to write a checkpoint. All records of `step` must be made before."""
        if self._checkpoints is not None and self._log is not None:
            self.check_there()
            self._log.sync()
            self._checkpoints.save(step, state, metadata=self._about, metric=score)

    def settle(self) -> None:
        """Returns once the last checkpoint is on the disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()
            self.check_there()

    def check_there(self) -> None:
        """Makes sure that the run directory is still there.

        Raises:
            RunGoneError: it was deleted or replaced.
        """
        if self._lock is not None:
            self._lock.check()

    def has_results(self, variables: Any) -> bool:
        """Whether the results of these variables are written."""
        return bool(
            parallel.from_process_0(
                self.process == 0 and are_written(self.folder, variables)
            )
        )

    def record(self, step: int, **values: Any) -> None:
        """Keeps values that the same run would come to again."""
        if self._log is not None:
            self.check_there()
            self._log.record(step, **values)
        self.show(step, **values)

    def show(self, step: int, **values: Any) -> None:
        """Shows values in TensorBoard alone: speeds and the like."""
        if self._board is not None:
            self._board.scalars(step, values)

    def progress(self, step: int, text: str) -> None:
        if self._log is not None:
            self._log.progress(step, text)

    def say(self, text: str) -> None:
        if self._log is not None:
            self._log.say(text)

    def stopping(self) -> bool:
        """Whether any process was asked to stop; all must ask at the same place."""
        return parallel.ask_all(lambda: self._stop.requested)()

    def asked(self) -> Any:
        """`stopping` in two halves, see `parallel.ask_all`."""
        return parallel.ask_all(lambda: self._stop.requested)

    def leave_if_stopping(self, video: int, result: Prediction) -> None:
        """For `evaluate` and `calibrate`, to look at stop requests once a chunk.

        Raises:
            Stopped: any process was asked to stop.
        """
        if result.frame % CHUNK == 0 and self.stopping():
            raise Stopped

    def show_predictions(
        self, step: int, source: FrameSource, video: int, result: Prediction
    ) -> None:
        """Shows the last frame of each video in TensorBoard."""
        last = result.frame == len(source.videos[video].frames) - 1
        if self._board is not None and last:
            self._board.prediction(step, source, video, result)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        stopped = isinstance(error, Stopped)
        if stopped:
            self._stop.request()
            self.say("stopped; the same command goes on from there")
        self._open.close()
        return stopped
