"""Trains a network by a recipe. Run again, it goes on where it stopped.

    python train.py --config configs/synthetic.py
    python train.py --config configs/endovis15.py --data.root DIR --optim.lr 3e-4
    python train.py --config configs/endovis17.py --data.root DIR --fold all --repeat 5

The run directory, WORKDIR/NAME/fold<k>-seed<s>, gets config.json, checkpoints,
metrics.jsonl and, at the end, results.json, a table and overlay pictures. Several runs
follow one another, those finished before are skipped, and mean and deviation of each
score go to WORKDIR/NAME/summary.json and summary.md.
For research use; not a medical device.
"""

import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dmnet_jax.command_line import exit_with_error, parse_command
from dmnet_jax.config import Config, check_resume, from_json, to_json
from dmnet_jax.process import StopRequest, run_lock
from dmnet_jax.series import SeriesFlags, finished, planned, write_average


def main(argv: Sequence[str] | None = None) -> int:
    config, flags = parse_command(
        argv, SeriesFlags(), prog="train.py", description=__doc__ or ""
    )
    try:
        runs = planned(config, flags)
        with StopRequest() as stop:
            for run in runs:
                if len(runs) > 1 and finished(run):
                    print(f"{run.run_directory}: finished before")
                    continue
                with run_lock(run.run_directory):
                    train(run, run.run_directory, stop)
                if stop.requested:
                    return stop.exit_code
        if len(runs) > 1:
            folder = config.run_directory.parent
            print("\n" + write_average(folder, [run.run_directory for run in runs]))
            print(f"\nsummary.json and summary.md: {folder}")
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def train(config: Config, run_dir: Path, stop: StopRequest) -> None:
    """Trains until the last stage ends or a stop is requested."""
    # After the command line, so that --help and mistakes in it answer at once.
    import jax

    from dmnet_jax import evaluation, models, parallel, results, training
    from dmnet_jax.checkpoint import Checkpoints
    from dmnet_jax.datasets import open_split, stage_loaders
    from dmnet_jax.feature_cache import FeatureCache
    from dmnet_jax.provenance import describe

    # ---- data
    train_videos, val_videos = open_split(config.data)
    stages = stage_loaders(train_videos, config)
    total = stages[-1].end
    parallel.local_batch_size(config.train.batch_size)

    # ---- network and state, new or as the last checkpoint left it
    network = models.build(config, axis_name=parallel.AXIS)
    state = training.create_state(
        models.initial_variables(network, config),
        training.make_optimizer(config.optim, stages[0]),
        key=jax.random.key(config.train.seed),
    )
    checkpoints = Checkpoints(run_dir)
    start = 0
    if checkpoints.steps():
        saved = json.dumps(checkpoints.latest_metadata()["config"])
        check_resume(from_json(saved), config)
        start, state, _ = checkpoints.restore(state)
    (run_dir / "config.json").write_text(to_json(config) + "\n")
    about = describe(config, train_videos, val_videos)
    log = results.RunLog(run_dir, step=start, total_steps=total)
    log.say(f"{run_dir}: {f'going on at step {start}' if start else 'starting'}")

    def calibrated(variables: dict) -> dict:
        measured = evaluation.calibrate(network, variables, train_videos)
        return {**variables, "thresholds": {**measured, **config.model.thresholds}}

    # ---- stages
    for stage in stages:
        if start >= stage.end:
            continue
        tx = training.make_optimizer(config.optim, stage)
        alone = stage.part == "single_frame"
        model = models.single_frame(network) if alone else network
        if start <= stage.begin:  # not in the midst of it
            variables = jax.device_get(state.variables)
            state = training.create_state(
                variables if alone else calibrated(variables),
                tx,
                key=state.key,
                step=stage.begin,
                skipped=int(state.skipped),
            )
            start = stage.begin
        loader, recipe = stage.loader, stage.recipe
        if stage.cached_views:
            loader, recipe = (
                FeatureCache(
                    run_dir / "features",
                    stage.loader,
                    views=stage.cached_views,
                    model=network,
                    variables=jax.device_get(state.variables),
                    log=log.say,
                ),
                "features",
            )
        step_fn = parallel.data_parallel(
            partial(
                training.train_step,
                model=model,
                tx=tx,
                part=stage.part,
                recipe=recipe,
                truncate=config.train.rollout_truncate,
                optim=config.optim,
                memory_gradient=config.train.memory_gradient,
                axis_name=parallel.AXIS,
            )
        )
        state = parallel.place_replicated(state)
        eval_every = config.train.eval_every_epochs * stage.loader.steps_per_epoch
        save_every = config.train.checkpoint_every_steps or eval_every
        clock, since = time.monotonic(), start
        for step, batch in enumerate(loader.iterate(start, stage.end), start + 1):
            state, metrics = step_fn(state, parallel.shard_batch(batch))
            done, end = step - stage.begin, step == stage.end
            if step % config.train.log_every == 0 or end:
                values = training.readable(jax.device_get(metrics))
                rate = (step - since) * config.train.batch_size
                rate /= time.monotonic() - clock
                log.record(step, stage=stage.name, **values)
                log.progress(
                    step,
                    f"{stage.name} · loss {values['loss']:.4f} · "
                    f"|grad| {values['grad_norm']:.2f} · {rate:.1f} clips/s",
                )
                clock, since = time.monotonic(), step
            evaluates = (end or done % eval_every == 0) and step != total
            if evaluates or done % save_every == 0 or stop.requested:
                score = None
                if evaluates and not stop.requested:
                    variables = jax.device_get(state.variables)
                    found = evaluation.evaluate(model, variables, val_videos)
                    score = found.score
                    log.record(step, stage=stage.name, val_iou=score)
                    log.say(f"step {step}: validation IoU {score:.4f}")
                if step != total:
                    checkpoints.save(step, state, metadata=about, metric=score)
                clock, since = time.monotonic(), step
            if stop.requested and step != total:
                checkpoints.close()
                log.say(f"stopped at step {step}; the same command goes on from there")
                return
        start = stage.end

    # ---- thresholds of the finished network, then what it is worth
    if total not in checkpoints.steps():
        variables = calibrated(jax.device_get(state.variables))
        state = state.replace(variables=parallel.place_replicated(variables))
    variables = jax.device_get(state.variables)
    overlays = results.Overlays(run_dir / "overlays", val_videos)
    found = evaluation.evaluate(network, variables, val_videos, on_frame=overlays)
    overlays.finish()
    checkpoints.save(total, state, metadata=about, metric=found.score)
    checkpoints.close()
    log.record(total, val_iou=found.score, **training.plain(variables["thresholds"]))
    results.write_results(run_dir, found, val_videos.classes, about)
    log.say(f"\n{results.tables(found, val_videos.classes)}")
    log.say(f"\nresults, tables and overlays: {run_dir}")
    log.close()


if __name__ == "__main__":
    sys.exit(main())
