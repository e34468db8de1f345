"""Several videos: one after another, in several processes, or on Ray.

Whoever calls it, each video is segmented by `Worker.segment`.
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
from dmnet_jax.process import StopRequest

POLL = 0.2
"""Seconds after which a wait for results looks whether it was asked to stop."""

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


def in_turn(
    request: Request, videos: Sequence[Video], stopping: Stopping, progress: Progress
) -> Iterator[Outcome]:
    """One video after another, in this process."""
    worker = Worker(request)
    for video in videos:
        yield worker.segment(video, stopping, progress)
        if stopping():
            return


def in_processes(
    request: Request, videos: Sequence[Video], jobs: int, stopping: Stopping
) -> Iterator[Outcome]:
    """`jobs` videos at a time, each in a process of its own; as they are done.

    Raises:
        ValueError: as `Worker.segment`; also if a process died.
    """
    # Or the first process takes most of a GPU's memory.
    os.environ.setdefault(_PREALLOCATE, "false")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        waiting = {pool.submit(_in_process, request, video) for video in videos}
        try:
            while waiting and not stopping():
                done, waiting = wait(waiting, POLL, FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a process ended by itself, for want of memory perhaps; finished "
                "videos are kept: run it again with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children() if waiting else ():
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
    """As `in_processes`, on `jobs` actors of a Ray cluster, or of a local Ray.

    A video whose machine is lost is segmented on another one, up to twice.

    Raises:
        ValueError: as `Worker.segment`; also if Ray is not installed.
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
        # Or the first of several on one GPU takes most of its memory.
        runtime_env={"env_vars": {_PREALLOCATE: "false"}} if 0 < share < 1 else None,
    )(Worker)
    actors = [actor.remote(request) for _ in range(min(jobs, len(videos)))]
    idle, left, waiting = list(actors), list(videos), {}
    try:
        while (left or waiting) and not stopping():
            while left and idle:
                one, video = idle.pop(), left.pop(0)
                waiting[one.segment.remote(video)] = one, video
            for done in ray.wait(list(waiting), timeout=POLL)[0]:
                one, video = waiting.pop(done)
                idle.append(one)
                yield _of_ray(ray, done, video)
    finally:
        for one in actors:
            ray.kill(one)


def _of_ray(ray: Any, done: Any, video: Video) -> Outcome:
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ValueError | OSError):  # no other video would do better
            raise cause from error
        text = " ".join(str(error).split())[-300:]
        return Outcome(video.name, "failed", text=f"its worker was lost ({text})")


def clock(seconds: float) -> str:
    """Such as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def told(outcome: Outcome, done: int, total: int, began: float) -> str:
    """A line about a video: which, what came of it, how long the others will take."""
    left = (time.monotonic() - began) / done * (total - done)
    what = [f"{outcome.frames} frames"] if outcome.frames else []
    if outcome.status != "done":
        what.append(f"{outcome.status} ({outcome.text})")
    rest = f"; {clock(left)} left" if done < total else ""
    return f"{done}/{total} {outcome.video}: {', '.join(what)}{rest}"
