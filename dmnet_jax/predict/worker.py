"""Prediction of one of several videos into its own folder, all or nothing.

Results are written to a temporary folder, which is renamed once it is complete. A
second run therefore only processes unfinished videos.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.io.files import WriteError, as_write_error, folder_lock
from dmnet_jax.predict.network import Network, load_network
from dmnet_jax.predict.run import Options, run
from dmnet_jax.predict.videos import Video
from dmnet_jax.video.sources import open_source

Stopping = Callable[[], bool]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Request:
    """Settings for all videos.

    Attributes:
        checkpoint: argument of `load_network`.
        which: argument of `load_network`.
        out: absolute path of the folder for the results folders.
        options: options for each video.
        memory: argument of `load_network`.
        size: argument of `load_network`.
        scales: argument of `load_network`.
        sha256: digest of the network that finished videos were made with; empty if
            there are none.
    """

    checkpoint: str
    which: str
    out: str
    options: Options
    memory: bool = True
    size: tuple[int, int] | None = None
    scales: tuple[float, ...] = ()
    sha256: str = ""

    def about(self) -> dict[str, Any]:
        """Returns the request as JSON, for summaries and for comparison with them."""
        request = {
            "which": self.which,
            "memory": self.memory,
            "size": self.size and list(self.size),
            "scales": list(self.scales),
            "frames": self.options.frames,
            "overlay": self.options.overlay,
            "format": self.options.form,
        }
        return {"checkpoint": self.checkpoint, "request": request}


class Outcome(NamedTuple):
    """The outcome of a video.

    Attributes:
        video: name of the video.
        status: "done"; "lost": the source was lost before its end, and the frames so
            far are written; "failed": nothing is written; "skipped": another process
            segments the video, or has done so; "stopped": a stop was requested, and
            nothing is written.
        frames: number of frames written.
        text: the reason if the status is not "done".
    """

    video: str
    status: str
    frames: int = 0
    text: str = ""


class Worker:
    """Segments videos one after another. The network is loaded with the first video.

    Each process of a pool and each Ray actor has its own worker.

    Args:
        request: settings for all videos.
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
        """Segments a video into the folder of its name, all or nothing.

        Files of a killed run and of a "lost" result are removed.

        Args:
            video: the video.
            stopping: see `run`.
            progress: called with the numbers of finished frames and of all frames.

        Raises:
            ValueError: the network cannot be loaded, or nothing can be written.
        """
        request = self._request
        if self._network is None:
            self._network = load_network(
                request.checkpoint,
                request.which,
                memory=request.memory,
                size=request.size,
                scales=request.scales,
            )
            if request.sha256 not in ("", self._network.sha256):
                raise ValueError(
                    f"{request.out}: its videos were made with other weights than "
                    f"those of {request.checkpoint}; choose another --out"
                )
        out = Path(request.out)
        work, final = out / f".{video.name}.partial", out / video.name
        try:
            with folder_lock(work) as acquired:
                if not acquired:
                    text = "another process is segmenting it"
                    return Outcome(video.name, "skipped", text=text)
                if not unfinished_videos(request, [video])[1]:
                    shutil.rmtree(work)
                    text = "another process has finished it"
                    return Outcome(video.name, "skipped", text=text)
                for path in work.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                summary = self._run(video, work, stopping, progress)
                if summary is None or stopping():
                    shutil.rmtree(work)
                    return Outcome(video.name, "stopped")
                with as_write_error(final):
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

    def _run(
        self, video: Video, work: Path, stopping: Stopping, progress: Progress
    ) -> dict[str, Any] | None:
        source, options = open_source(video.source), self._request.options
        total = count_frames(source, options.frames)
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


def count_frames(source: Any, limit: int = 0) -> int | None:
    """Returns the number of frames of a source; None if unknown.

    Args:
        source: a source from `open_source`.
        limit: maximum number of frames; 0 for all.
    """
    paths = getattr(source, "paths", None)
    length = len(paths) if paths else getattr(source, "length", None)
    if length is None:
        return limit or None
    return min(length, limit) if limit else length


def unfinished_videos(
    request: Request, videos: Sequence[Video]
) -> tuple[Request, list[Video]]:
    """Returns the videos that no earlier run has finished.

    Returns:
        The request with the digest of the earlier runs' network, and the videos.

    Raises:
        ValueError: an earlier run had other settings.
    """
    unfinished, sha256 = [], ""
    for video in videos:
        path = Path(request.out) / video.name / "summary.json"
        if not path.parent.exists():
            unfinished.append(video)
            continue
        try:
            summary = json.loads(path.read_bytes())
            about = {name: summary[name] for name in request.about()}
            sha256 = summary["weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path.parent}: not a result of this command; choose another --out"
            ) from error
        if about != request.about():
            raise ValueError(
                f"{path}: was made with {about}, not {request.about()}; choose another "
                "--out, or delete the folder"
            )
        if summary.get("lost"):
            unfinished.append(video)
    return replace(request, sha256=sha256), unfinished
