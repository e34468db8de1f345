"""The training loop of a stage, with checkpoints, validation and clean stops.

Each step writes, in this order: its record, a checkpoint, and, after validation, the
record of the score and the checkpoint again with the score. A run that resumes from a
checkpoint therefore has all records up to it, and a missing score shows that a
validation is still due. An interruption at any moment thus leads to the same records
and state as an uninterrupted run.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from data_pipelines.frames import FrameSource
from data_pipelines.io.files import atomic_write
from dmnet_jax import evaluation, parallel, training
from dmnet_jax.models import VideoSegmenter
from dmnet_jax.models.forward import FORWARD
from dmnet_jax.process import Stopped, heartbeat
from dmnet_jax.training.distillation import teacher_of
from dmnet_jax.training.run import Run
from dmnet_jax.training.stages import Stage

# A gradient norm below this has vanished: with Dice alone, this happens once every
# pixel is confidently one class. The smallest norm seen in a healthy stage is 0.01.
VANISHED = 1e-5


class NotFiniteError(ValueError):
    """Too many steps in a row had a loss or gradient that is not finite."""


def train_stage(
    run: Run,
    state: training.TrainState,
    stage: Stage,
    *,
    model: VideoSegmenter,
    tx: optax.GradientTransformation,
    videos: FrameSource,
    start: int,
    scored: bool,
    teacher: tuple[VideoSegmenter, Any] | None = None,
) -> training.TrainState:
    """Trains until the end of a stage.

    Args:
        run: the run; receives records and checkpoints.
        state: state after `start` steps.
        stage: the stage.
        model: the network that the stage trains.
        tx: optimizer from `training.make_optimizer`.
        videos: validation videos.
        start: number of steps already taken, from `stage.begin` to `stage.end`.
        scored: whether the validation at `start` is done.
        teacher: network and variables of `distillation.load_teacher`, or None. Ignored
            in a stage that trains the memory.

    Returns:
        The state at the end of the stage, on all devices.

    Raises:
        Stopped: a stop was requested; the state is saved.
        NotFiniteError: training diverged; the last batch is saved.
    """
    config, forward = run.config.train, FORWARD[stage.recipe]
    learned = None
    if teacher is not None and not stage.only_memory:
        learned = teacher_of(*teacher, forward, truncate=config.rollout_truncate)
    step_fn = parallel.data_parallel(
        partial(
            training.train_step,
            model=model,
            tx=tx,
            forward=forward,
            teacher=learned,
            part=stage.part,
            truncate=config.rollout_truncate,
            optim=run.config.optim,
            memory_gradient=config.memory_gradient,
            axis_name=parallel.AXIS,
        )
    )
    eval_every = config.eval_every_epochs * stage.loader.steps_per_epoch
    save_every = config.checkpoint_every_steps or eval_every

    def is_due(step: int, interval: int) -> bool:
        return step == stage.end or (step - stage.begin) % interval == 0

    def validates(step: int) -> bool:
        return step != run.total and step > stage.begin and is_due(step, eval_every)

    state = parallel.place_replicated(state)
    if validates(start) and not scored:
        validate(run, start, state, stage, model, videos)
    monitor = _Monitor(run, stage, start)
    batches = monitor.timed(stage.loader.iterate(start, stage.end))
    compiling = f"{stage.name}: compiling and running the first step"
    with (
        contextlib.closing(batches),
        heartbeat(run.print, compiling) as first_done,
    ):
        # The results of a step are read while the next step is computed.
        pending: tuple[Any, ...] = ()
        for step, batch in enumerate(batches, start + 1):
            state, metrics = step_fn(state, parallel.shard_batch(batch))
            stopping = monitor.read(*pending) if pending else False
            if pending:
                first_done()
            pending = step, metrics, run.start_stop_check()
            if stopping or is_due(step, save_every) or validates(step):
                stopping = monitor.read(*pending) or stopping
                first_done()
                pending = ()
                run.save(step, state)
                if stopping:
                    raise Stopped
                if validates(step):
                    validate(run, step, state, stage, model, videos)
                monitor.restart(step)
    return state


def validate(
    run: Run,
    step: int,
    state: training.TrainState,
    stage: Stage,
    model: VideoSegmenter,
    videos: FrameSource,
) -> None:
    """Evaluates on whole videos. Every process does so, to stay in step."""

    def on_frame(video: int, result: evaluation.Prediction) -> None:
        run.raise_if_stopping(video, result)
        run.log_predictions(step, videos, video, result)

    variables = jax.device_get(state.variables)
    with heartbeat(run.print, f"step {step}: validating"):
        result = evaluation.evaluate(model, variables, videos, on_frame=on_frame)
    run.record(step, stage=stage.name, val_iou=result.score)
    score = "n/a" if np.isnan(result.score) else f"{result.score:.4f}"
    run.print(f"step {step}: validation IoU {score}")
    run.save(step, state, score=result.score)


class _Monitor:
    """Records and shows the metrics of steps; raises if training diverges."""

    def __init__(self, run: Run, stage: Stage, start: int):
        self._run, self._stage = run, stage
        self.restart(start)

    def restart(self, step: int) -> None:
        """Restarts the speed measurement."""
        self._first, self._start, self._waited = step, time.monotonic(), 0.0

    def timed(self, batches: Iterable[Any]) -> Generator[Any, None, None]:
        """Yields the batches and measures the time spent waiting for them."""
        source = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(source, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch
            del batch  # the loader may reuse its memory

    def read(self, step: int, metrics: Any, stop_check: Callable[[], bool]) -> bool:
        """Waits for a step; returns whether a stop was requested."""
        config, stage = self._run.config.train, self._stage
        metrics = jax.device_get(metrics)
        if metrics["skipped_in_a_row"] >= config.max_skipped:
            self._raise_not_finite(step, int(metrics["skipped_in_a_row"]))
        if step % config.log_every == 0 or step == stage.end:
            values = training.summarize_metrics(metrics)
            self._run.record(step, stage=stage.name, **values)
            elapsed = max(time.monotonic() - self._start, 1e-9)
            speed = (step - self._first) * config.batch_size / elapsed
            share = self._waited / elapsed
            self._run.log_scalars(step, clips_a_second=speed, waiting_for_data=share)
            self._run.show_progress(
                step, progress_text(stage.name, values, speed, share)
            )
            self.restart(step)
        return stop_check()

    def _raise_not_finite(self, step: int, count: int) -> None:
        run, stage = self._run, self._stage
        run.folder.mkdir(parents=True, exist_ok=True)
        path = run.folder / f"not_finite_step{step}_process{run.process}.npz"
        # A batch depends on seed and step only, so the loader can produce it again.
        arrays: dict[str, Any] = stage.loader.batch(step - 1)
        names = [stage.loader.video_name(int(video)) for video in arrays["video"]]
        arrays["video_name"] = np.array(names)
        with atomic_write(path) as fresh, fresh.open("wb") as file:
            np.savez_compressed(file, **arrays)
        raise NotFiniteError(
            f"step {step}: loss or gradient was not finite {count} steps in a row "
            f"(train.max_skipped), so no weights changed; the last batch is in {path}; "
            "start a new run with a smaller optim.lr or with optim.clip_norm"
        )


def progress_text(
    stage: str, values: dict[str, Any], speed: float, waiting: float
) -> str:
    """Formats the metrics of a step for the progress line.

    Args:
        stage: name of the stage.
        values: metrics from `training.summarize_metrics`.
        speed: clips per second.
        waiting: fraction of the time spent waiting for data.
    """
    parts = [
        stage,
        f"loss {values['loss']:.4f}",
        f"lr {values['lr']:.1e}",
        f"|grad| {values['grad_norm']:.2f}",
    ]
    if values["grad_norm"] < VANISHED:
        parts.append("the gradient has vanished: raise optim.cross_entropy_weight")
    if "admitted" in values:
        parts.append(f"admitted {values['admitted']:.0%}")
    if values["skipped"]:
        parts.append(f"skipped {values['skipped']}")
    parts += [f"data wait {waiting:.0%}", f"{speed:.1f} clips/s"]
    return " · ".join(parts)
