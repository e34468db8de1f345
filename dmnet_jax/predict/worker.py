"""One of several videos into a folder of its own, complete or not at all.

Results are written beside their place and moved there once they are complete, so that a
second run does what the first one left.
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
    """What is asked for, alike for all videos.

    Attributes:
        checkpoint: of `load_network`.
        which: of it.
        out: absolute path of the folder for the videos' folders.
        options: for each video.
        memory: of `load_network`.
        sha256: of the network that finished videos were made with; empty if none are.
    """

    checkpoint: str
    which: str
    out: str
    options: Options
    memory: bool = True
    sha256: str = ""

    def about(self) -> dict[str, Any]:
        """JSON that is the same for the same request."""
        form = self.options.form
        frames, overlay = self.options.frames, self.options.overlay
        asked = {"which": self.which, "memory": self.memory, "frames": frames}
        asked |= {"overlay": overlay, "format": form}
        return {"checkpoint": self.checkpoint, "request": asked}


class Outcome(NamedTuple):
    """What came of a video.

    Attributes:
        video: its name.
        status: "done"; "lost", before its end, what there was is written; "failed",
            nothing is; "skipped", another process has or did it; "stopped", as it was
            asked to, nothing is written.
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
            self._network = load_network(
                request.checkpoint, request.which, memory=request.memory
            )
            if request.sha256 not in ("", self._network.sha256):
                raise ValueError(
                    f"{request.out}: videos in it were made with other weights than "
                    f"{request.checkpoint} has now; name another --out"
                )
        out = Path(request.out)
        work, final = out / f".{video.name}.partial", out / video.name
        try:
            with folder_lock(work) as ours:
                if not ours:
                    return Outcome(video.name, "skipped", text="another process has it")
                if not left_over(request, [video])[1]:
                    shutil.rmtree(work)
                    return Outcome(video.name, "skipped", text="another process did it")
                for path in work.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                summary = self._written(video, work, stopping, progress)
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
    if length is None:
        return most or None
    return min(length, most) if most else length


def left_over(request: Request, videos: Sequence[Video]) -> tuple[Request, list[Video]]:
    """The videos that no earlier run has finished, and the request with its network.

    Raises:
        ValueError: an earlier run was asked for something else.
    """
    left, network = [], ""
    for video in videos:
        path = Path(request.out) / video.name / "summary.json"
        if not path.parent.exists():
            left.append(video)
            continue
        try:
            summary = json.loads(path.read_bytes())
            found = {name: summary[name] for name in request.about()}
            network = summary["weights_sha256"]
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
    return replace(request, sha256=network), left
