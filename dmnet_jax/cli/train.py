"""Trains a network with a recipe. Run the same command again to resume.

    python train.py --config configs/synthetic.py
    python train.py --config configs/endovis15.py --data.root DIR --optim.lr 3e-4
    python train.py --config configs/endovis17.py --data.root DIR --fold all --repeat 5

The installed command is `dmnet-train`. A shipped recipe can also be given by name:
`--config endovis17`.

The run directory, WORKDIR/NAME/fold<k>-seed<s>, receives config.json, checkpoints,
metrics.jsonl and, at the end, results.json, a table and overlay pictures. Several runs
are trained one after another, finished ones are skipped, and mean and standard
deviation of each score are written to WORKDIR/NAME/summary.json and summary.md. For
research use; not a medical device.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dmnet_jax.cli.arguments import exit_with_error, parse_command, program_name
from dmnet_jax.config import Config
from dmnet_jax.process import StopRequest
from dmnet_jax.training.cross_validation import (
    RunFlags,
    is_finished,
    plan_runs,
    write_average,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    config, flags = parse_command(
        argv,
        RunFlags(),
        prog=program_name("python train.py"),
        description=__doc__ or "",
    )
    try:
        runs = plan_runs(config, flags)
        with StopRequest() as stop:
            for run in runs:
                if len(runs) > 1 and is_finished(run):
                    print(f"{run.run_directory}: already finished")
                    continue
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
    # Imported here, so that --help and command-line errors are fast.
    import jax

    from dmnet_jax import evaluation, models, parallel, training
    from dmnet_jax.checkpoint.provenance import describe
    from dmnet_jax.datasets import check_masks, open_split
    from dmnet_jax.evaluation import results
    from dmnet_jax.process import heartbeat
    from dmnet_jax.training import requirements
    from dmnet_jax.training.distillation import load_teacher
    from dmnet_jax.training.feature_cache import cache_features
    from dmnet_jax.training.initial import initial_variables
    from dmnet_jax.training.loop import train_stage
    from dmnet_jax.training.run import Run
    from dmnet_jax.training.stages import build_stages, with_cuts

    parallel.initialize(config.distributed)
    process, processes = parallel.processes()
    parallel.local_batch_size(config.train.batch_size)

    teacher = load_teacher(config) if config.train.teacher else None

    # ---- data
    train_videos, val_videos = open_split(config.data)
    notes = check_masks(config.data, train_videos, val_videos)
    stages = build_stages(
        train_videos, config, process_index=process, process_count=processes
    )
    about = describe(config, train_videos, val_videos)
    total = stages[-1].end

    with Run(config, run_dir, stop, about, total_steps=total) as run:
        # ---- network and state, new or from the last checkpoint
        network = models.build(config, axis_name=parallel.AXIS)
        state = training.create_state(
            initial_variables(network, config, teacher and teacher[1]),
            training.make_optimizer(config.optim, stages[0]),
            key=jax.random.key(config.train.seed),
        )
        start, state, scored = run.restore(
            state,
            lambda step: requirements.describe(
                *(stages, network, state.variables, config),
                videos=(train_videos, val_videos),
                start=step,
            ),
        )
        for note in notes:
            run.print(f"note: {note}")
        complete = start == total and scored
        if complete and run.has_results(state.variables):
            run.print(f"finished; results, tables and overlays: {run_dir}")
            return

        def calibrate(variables: dict) -> dict:
            if not network.memories.global_:  # there are no thresholds
                return variables
            with heartbeat(run.print, "calibrating the memory's thresholds"):
                measured = evaluation.calibrate(
                    network, variables, train_videos, on_frame=run.raise_if_stopping
                )
            measured = parallel.from_process_0(measured)
            return {**variables, "thresholds": {**measured, **config.model.thresholds}}

        # ---- stages
        for stage in stages:
            if start > stage.end or complete:
                continue
            tx = training.make_optimizer(config.optim, stage)
            alone = stage.part == "single_frame"
            model = network.single_frame() if alone else network
            if start <= stage.begin:  # not resumed within this stage
                variables = jax.device_get(state.variables)
                state = training.create_state(
                    variables if alone else calibrate(variables),
                    tx,
                    key=state.key,
                    step=stage.begin,
                    skipped=int(state.skipped),
                )
            features = run_dir / f"features{process}"
            with cache_features(
                stage, features, network, state.variables, run.print, run.check_stop
            ) as stage:
                state = train_stage(
                    run,
                    state,
                    with_cuts(stage, config),
                    model=model,
                    tx=tx,
                    videos=val_videos,
                    start=start,
                    scored=scored,
                    teacher=teacher,
                )
            start, scored = stage.end, True

        # ---- thresholds of the finished network, then its scores
        # Saved before the evaluation: if that fails, the same command resumes here.
        variables = jax.device_get(state.variables)
        if not complete:
            variables = calibrate(variables)
            run.save(total, state.replace(variables=variables))
        overlays = (
            None if process else results.Overlays(run_dir / "overlays", val_videos)
        )

        def on_frame(video: int, result: evaluation.Prediction) -> None:
            run.raise_if_stopping(video, result)
            if overlays is not None:
                overlays(video, result)

        with heartbeat(run.print, "evaluating the finished network"):
            result = evaluation.evaluate(
                network, variables, val_videos, on_frame=on_frame
            )
        thresholds = training.as_floats(variables.get("thresholds", {}))
        if not complete:
            run.record(total, val_iou=result.score, **thresholds)
            run.save(total, state.replace(variables=variables), score=result.score)
        run.wait_until_saved()
        if overlays is not None:
            overlays.finish()
            results.write_results(run_dir, result, val_videos.classes, about)
        run.check_exists()
        run.print(f"\n{results.tables(result, val_videos.classes)}")
        run.print(f"\nresults, tables and overlays: {run_dir}")


if __name__ == "__main__":
    sys.exit(main())
