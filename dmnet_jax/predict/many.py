"""Several videos: one after another, in several processes, or as tasks of Ray.

Each video is segmented by `Worker.segment`, whoever calls it. Its results are written
beside their place and moved there once they are complete, so that a second run does
what the first one left.
"""

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.io.environment import install
from data_pipelines.io.files import WriteError, held, naming
from dmnet_jax.predict.network import Network, load_network
from dmnet_jax.predict.run import Options, run
from dmnet_jax.predict.videos import Video
from dmnet_jax.process import StopRequest
from dmnet_jax.video.sources import open_source

POLL = 0.2
"""Seconds after which a wait for results looks whether it was asked to stop."""

Stopping = Callable[[], bool]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Request:
    """What is asked for, alike for all videos.

    Attributes:
        checkpoint: of `load_network`.
        which: of it.
        out: absolute path of the folder for the videos' folders.
        options: for each video.
    """

    checkpoint: str
    which: str
    out: str
    options: Options

    def about(self) -> dict[str, Any]:
        """JSON that is the same for the same request."""
        form = self.options.form
        frames, overlay = self.options.frames, self.options.overlay
        asked = {"which": self.which, "frames": frames, "overlay": overlay}
        return {"checkpoint": self.checkpoint, "request": {**asked, "format": form}}


class Outcome(NamedTuple):
    """What came of a video.

    Attributes:
        video: its name.
        status: "done"; "lost", before its end, what there was is written; "failed",
            nothing is; "stopped", as it was asked to, nothing is.
        frames: written.
        text: why it is not done.
    """

    video: str
    status: str
    frames: int = 0
    text: str = ""


class Worker:
    """Segments videos one after another, with a network that is loaded for the first.

    A process of a pool has one, and so has an actor of Ray.

    Args:
        request: for all of them.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._network: Network | None = None

    def segment(
        self,
        video: Video,
        stopping: Stopping = lambda: False,
        progress: Progress = lambda done, total: None,
    ) -> Outcome:
        """Segments a video into the folder of its name, complete or not at all.

        What a killed run left of it is removed, and so is a result that was lost.

        Raises:
            ValueError: the network cannot be loaded, or nothing can be written.
        """
        request = self._request
        if self._network is None:
            self._network = load_network(request.checkpoint, request.which)
        out = Path(request.out)
        work, final = out / f".{video.name}.partial", out / video.name
        try:
            with held(work) as ours:
                if not ours:
                    raise ValueError("another process segments it")
                for path in work.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                summary = self._written(video, work, stopping, progress)
                if summary is None or stopping():
                    shutil.rmtree(work)
                    return Outcome(video.name, "stopped")
                with naming(final):
                    if final.exists():
                        shutil.rmtree(final)
                    os.replace(work, final)
        except WriteError:
            raise
        except (ValueError, OSError) as error:
            shutil.rmtree(work, ignore_errors=True)
            return Outcome(video.name, "failed", text=str(error))
        status = "lost" if summary["lost"] else "done"
        return Outcome(video.name, status, summary["frames_written"], summary["lost"])

    def _written(
        self, video: Video, work: Path, stopping: Stopping, progress: Progress
    ) -> dict[str, Any] | None:
        source, options = open_source(video.source), self._request.options
        total = length_of(source, options.frames)
        options = Options(
            frames=options.frames,
            form=options.form,
            overlay=options.overlay,
            about={**self._request.about(), "source": video.source},
        )
        assert self._network is not None

        def count(done: int) -> None:
            progress(done, total)

        return run(self._network, source, work, options, stopping, count)


def length_of(source: Any, most: int = 0) -> int | None:
    """How many frames of a source are to come; None if it does not tell.

    Args:
        source: of `open_source`.
        most: at most so many; 0: all.
    """
    paths = getattr(source, "paths", None)
    length = len(paths) if paths else getattr(source, "length", None)
    return most or length if length is None or most else min(length, most or length)


def left_over(request: Request, videos: Sequence[Video]) -> list[Video]:
    """The videos that no earlier run has finished.

    Raises:
        ValueError: an earlier run was asked for something else.
    """
    left = []
    for video in videos:
        path = Path(request.out) / video.name / "summary.json"
        if not path.parent.exists():
            left.append(video)
            continue
        try:
            summary = json.loads(path.read_bytes())
            found = {name: summary[name] for name in request.about()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.parent}: no result of this command; name another --out"
            ) from error
        if found != request.about():
            raise ValueError(
                f"{path}: was made with {found}, not {request.about()}; name another "
                "--out, or delete it"
            )
        if summary.get("lost"):
            left.append(video)
    return left


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
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
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
        # A pool's processes would wait for work for ever if its owner is killed.
        threading.Thread(target=_end_with_parent, daemon=True).start()
    with StopRequest() as stop:
        return _worker.segment(video, lambda: stop.requested)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def on_ray(
    request: Request, videos: Sequence[Video], jobs: int, stopping: Stopping
) -> Iterator[Outcome]:
    """As `in_processes`, on `jobs` actors of a Ray cluster, or of a local Ray.

    A video whose machine is lost is segmented on another one.

    Raises:
        ValueError: as `Worker.segment`; also if Ray is not installed.
    """
    try:
        ray: Any = import_module("ray")
        pool_of: Any = import_module("ray.util").ActorPool
    except ImportError as error:
        raise ValueError(
            f"--engine ray needs Ray: {install('ray')} ({error})"
        ) from error
    if not ray.is_initialized():
        ray.init(logging_level="WARNING", log_to_driver=False)
    gpus = ray.cluster_resources().get("GPU", 0)
    share = min(1.0, gpus / jobs)
    actor = ray.remote(num_cpus=1, num_gpus=share, max_restarts=2, max_task_retries=2)(
        Worker
    )
    actors = [actor.remote(request) for _ in range(min(jobs, len(videos)))]
    pool = pool_of(actors)
    for video in videos:
        pool.submit(lambda actor, video: actor.segment.remote(video), video)
    try:
        while pool.has_next() and not stopping():
            try:
                yield pool.get_next_unordered(timeout=POLL)
            except TimeoutError:
                continue
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ValueError | OSError):
            raise cause from error
        text = " ".join(str(error).split())[-300:]
        raise ValueError(
            f"a worker of Ray failed; finished videos are kept: run it again ({text})"
        ) from error
    finally:
        for one in actors:
            ray.kill(one)


def clock(seconds: float) -> str:
    """Such as 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def told(outcome: Outcome, done: int, total: int, began: float) -> str:
    """A line about a video: which, what came of it, how long the others will take."""
    left = (time.monotonic() - began) / done * (total - done)
    what = f"{outcome.frames} frames" if outcome.frames else outcome.status
    text = f" ({outcome.status}: {outcome.text})" if outcome.text else ""
    rest = f"; {clock(left)} left" if done < total else ""
    return f"{done}/{total} {outcome.video}: {what}{text}{rest}"
