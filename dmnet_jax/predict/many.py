"""Prediction of several videos: in sequence, in several processes, or with Ray.

In each case, a video is segmented by `Worker.segment`.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any

from data_pipelines.io.environment import end_with_parent, install_command
from dmnet_jax.predict.videos import Video
from dmnet_jax.predict.worker import Outcome, Progress, Request, Stopping, Worker
from dmnet_jax.process import StopRequest, format_duration

POLL = 0.2
"""Seconds between checks for a stop request while waiting for results."""

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


def in_sequence(
    request: Request, videos: Sequence[Video], stopping: Stopping, progress: Progress
) -> Iterator[Outcome]:
    """Segments one video after another in this process."""
    worker = Worker(request)
    for video in videos:
        yield worker.segment(video, stopping, progress)
        if stopping():
            return


def in_processes(
    request: Request, videos: Sequence[Video], jobs: int, stopping: Stopping
) -> Iterator[Outcome]:
    """Segments `jobs` videos at a time in separate processes.

    Yields:
        Outcomes, as videos are completed.

    Raises:
        ValueError: see `Worker.segment`; also if a process died.
    """
    # Otherwise, the first process would reserve most of the GPU's memory.
    os.environ.setdefault(_PREALLOCATE, "false")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        running = {pool.submit(_in_process, request, video) for video in videos}
        try:
            while running and not stopping():
                done, running = wait(running, POLL, FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a process died, possibly out of memory; finished videos are kept: run "
                "the command again with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if running:
                for child in multiprocessing.active_children():
                    child.terminate()


_worker: Worker | None = None


def _in_process(request: Request, video: Video) -> Outcome:
    global _worker
    if _worker is None:
        _worker = Worker(request)
        end_with_parent()
    with StopRequest() as stop:
        return _worker.segment(video, lambda: stop.requested)


def on_ray(
    request: Request, videos: Sequence[Video], jobs: int, stopping: Stopping
) -> Iterator[Outcome]:
    """Like `in_processes`, with `jobs` actors of a Ray cluster or of a local Ray.

    If a machine is lost, its video is segmented on another one, up to twice.

    Raises:
        ValueError: see `Worker.segment`; also if Ray is not installed.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise ValueError(
            f"--engine ray needs Ray: {install_command('ray')} ({error})"
        ) from error
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(logging_level="WARNING", log_to_driver=False)
    share = min(1.0, ray.cluster_resources().get("GPU", 0) / jobs)
    actor = ray.remote(
        num_cpus=1,
        num_gpus=share,
        max_restarts=-1,
        max_task_retries=2,
        # Otherwise, the first of several actors would reserve most of a GPU's memory.
        runtime_env={"env_vars": {_PREALLOCATE: "false"}} if 0 < share < 1 else None,
    )(Worker)
    workers = [actor.remote(request) for _ in range(min(jobs, len(videos)))]
    idle, pending, running = list(workers), list(videos), {}
    try:
        while (pending or running) and not stopping():
            while pending and idle:
                worker, video = idle.pop(), pending.pop(0)
                running[worker.segment.remote(video)] = worker, video
            for future in ray.wait(list(running), timeout=POLL)[0]:
                worker, video = running.pop(future)
                idle.append(worker)
                yield _ray_outcome(ray, future, video)
    finally:
        for worker in workers:
            ray.kill(worker)


def _ray_outcome(ray: Any, future: Any, video: Video) -> Outcome:
    try:
        return ray.get(future)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ValueError | OSError):  # would fail for all videos
            raise cause from error
        text = " ".join(str(error).split())[-300:]
        return Outcome(video.name, "failed", text=f"its worker was lost ({text})")


def format_outcome(outcome: Outcome, done: int, total: int, start: float) -> str:
    """Formats a line about a finished video.

    Args:
        outcome: outcome of the video.
        done: number of finished videos.
        total: number of videos.
        start: `time.monotonic()` at the start.
    """
    remaining = (time.monotonic() - start) / done * (total - done)
    parts = [f"{outcome.frames} frames"] if outcome.frames else []
    if outcome.status != "done":
        parts.append(f"{outcome.status} ({outcome.text})")
    left = f"; {format_duration(remaining)} left" if done < total else ""
    return f"{done}/{total} {outcome.video}: {', '.join(parts)}{left}"
