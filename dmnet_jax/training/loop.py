"""The steps of a stage: taken, watched, saved, and stopped in good order.

At a step, in this order: its record, a checkpoint, validation, the record of that, and
the checkpoint again with the score. A run that goes on from a checkpoint therefore has
all records up to it, and knows by the missing score that a validation is still due. So
it may end at any moment and still leave the records and the state of a run that was
never interrupted.
"""

import contextlib
import time
from collections.abc import Generator, Iterable
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
from dmnet_jax.process import Stopped, waiting
from dmnet_jax.training.run import Run
from dmnet_jax.training.stages import Stage

# A norm below this teaches nothing: Dice alone gives it once every pixel is surely of
# one class. The smallest of a healthy stage that was seen is 0.01.
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
) -> training.TrainState:
    """Takes the steps of a stage that are left.

    Args:
        run: where it is told and saved.
        state: after `start` steps.
        stage: to go through.
        model: that the stage trains.
        tx: of `training.make_optimizer`.
        videos: to validate on.
        start: steps taken before, from the stage's begin to its end.
        scored: whether the validation at `start` is done.

    Returns:
        The state at the stage's end, on all devices.

    Raises:
        Stopped: a stop was asked for; the state is saved.
        NotFiniteError: the training has come apart; the batch is dumped.
    """
    config = run.config.train
    step_fn = parallel.data_parallel(
        partial(
            training.train_step,
            model=model,
            tx=tx,
            forward=FORWARD[stage.recipe],
            part=stage.part,
            truncate=config.rollout_truncate,
            optim=run.config.optim,
            memory_gradient=config.memory_gradient,
            axis_name=parallel.AXIS,
        )
    )
    eval_every = config.eval_every_epochs * stage.loader.steps_per_epoch
    save_every = config.checkpoint_every_steps or eval_every

    def every(steps: int, step: int) -> bool:
        return step == stage.end or (step - stage.begin) % steps == 0

    def validates(step: int) -> bool:
        return step != run.total and step > stage.begin and every(eval_every, step)

    state = parallel.place_replicated(state)
    if validates(start) and not scored:
        validate(run, start, state, stage, model, videos)
    watch = _Watch(run, stage, start)
    batches = watch.waited_for(stage.loader.iterate(start, stage.end))
    compiling = f"{stage.name}: compiling the step and taking the first"
    with contextlib.closing(batches), waiting(run.say, compiling) as first_is_there:
        # What a step came to is read while the next is being computed.
        unread: tuple[Any, ...] = ()
        for step, batch in enumerate(batches, start + 1):
            state, metrics = step_fn(state, parallel.shard_batch(batch))
            stopping = watch.read(*unread) if unread else False
            if unread:
                first_is_there()
            unread = step, metrics, run.asked()
            if stopping or every(save_every, step) or validates(step):
                stopping = watch.read(*unread) or stopping
                first_is_there()
                unread = ()
                run.save(step, state)
                if stopping:
                    raise Stopped
                if validates(step):
                    validate(run, step, state, stage, model, videos)
                watch.restart(step)
    return state


def validate(
    run: Run,
    step: int,
    state: training.TrainState,
    stage: Stage,
    model: VideoSegmenter,
    videos: FrameSource,
) -> None:
    """Evaluates on whole videos; every process does, and so they stay together."""

    def on_frame(video: int, result: evaluation.Prediction) -> None:
        run.leave_if_stopping(video, result)
        run.show_predictions(step, videos, video, result)

    variables = jax.device_get(state.variables)
    with waiting(run.say, f"step {step}: validating"):
        found = evaluation.evaluate(model, variables, videos, on_frame=on_frame)
    run.record(step, stage=stage.name, val_iou=found.score)
    score = "n/a" if np.isnan(found.score) else f"{found.score:.4f}"
    run.say(f"step {step}: validation IoU {score}")
    run.save(step, state, score=found.score)


class _Watch:
    """Reads what steps came to: records it, shows it, gives up when it must."""

    def __init__(self, run: Run, stage: Stage, start: int):
        self._run, self._stage = run, stage
        self.restart(start)

    def restart(self, step: int) -> None:
        """Starts the clock of speeds."""
        self._since, self._began, self._waited = step, time.monotonic(), 0.0

    def waited_for(self, batches: Iterable[Any]) -> Generator[Any, None, None]:
        """The same batches, and how long each was waited for."""
        source = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(source, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch
            del batch  # its memory may be filled again

    def read(self, step: int, metrics: Any, asked: Any) -> bool:
        """Waits for a step; returns whether the run is to stop."""
        config, stage = self._run.config.train, self._stage
        metrics = jax.device_get(metrics)
        if metrics["skipped_in_a_row"] >= config.max_skipped:
            self._give_up(step, int(metrics["skipped_in_a_row"]))
        if step % config.log_every == 0 or step == stage.end:
            values = training.readable(metrics)
            self._run.record(step, stage=stage.name, **values)
            passed = max(time.monotonic() - self._began, 1e-9)
            speed = (step - self._since) * config.batch_size / passed
            share = self._waited / passed
            self._run.show(step, clips_a_second=speed, waiting_for_data=share)
            self._run.progress(step, progress_text(stage.name, values, speed, share))
            self.restart(step)
        return asked()

    def _give_up(self, step: int, times: int) -> None:
        run, stage = self._run, self._stage
        run.folder.mkdir(parents=True, exist_ok=True)
        path = run.folder / f"not_finite_step{step}_process{run.process}.npz"
        # The batch of a step is a function of the step, so it can be had again.
        arrays: dict[str, Any] = stage.loader.batch(step - 1)
        names = [stage.loader.video_name(int(video)) for video in arrays["video"]]
        arrays["video_name"] = np.array(names)
        with atomic_write(path) as fresh, fresh.open("wb") as file:
            np.savez_compressed(file, **arrays)
        raise NotFiniteError(
            f"step {step}: loss or gradient was not finite {times} steps in a row "
            f"(train.max_skipped), so no weights changed; the last batch is in {path}; "
            "start another run with a smaller optim.lr or an optim.clip_norm"
        )


def progress_text(
    stage: str, values: dict[str, Any], speed: float, waiting: float
) -> str:
    """What a step came to, for people.

    Args:
        stage: its name.
        values: of `training.readable`.
        speed: clips a second.
        waiting: share of the time spent waiting for data.
    """
    parts = [
        stage,
        f"loss {values['loss']:.4f}",
        f"rate {values['lr']:.1e}",
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
