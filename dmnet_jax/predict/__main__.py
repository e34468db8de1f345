"""Segments videos and writes masks, an overlay video and a record of each frame.

    python -m dmnet_jax.predict --source video.mp4 --out DIR
    python -m dmnet_jax.predict --checkpoint RUN --source 0 --mode live --out DIR
    python -m dmnet_jax.predict --source VIDEOS --out DIR --format coco --jobs 4

Sources: a video file, a folder of pictures, the number of a camera, an address
(rtsp://...), or "synthetic". DIR receives overlay.mp4 (pictures in overlay/ without
PyAV), masks/*.png (palette index is class), frames.jsonl (one line per frame) and
summary.json. --mode offline segments every frame. --mode live takes the latest frame,
drops and counts those in between, and reconnects to a lost camera. Ctrl-C ends it with
all files complete. Of a folder of videos, or a pattern in quotes ("day*/*.mp4"), DIR
receives a folder for each video, complete or not at all; a second run does the rest.
For research use; not a medical device.
"""

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_pipelines.io.names import printable
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program_name

if TYPE_CHECKING:
    from dmnet_jax.predict.run import Options
    from dmnet_jax.predict.videos import Video
    from dmnet_jax.predict.worker import Request


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to segment, and how.

    Attributes:
        checkpoint: Run directory, "rendered" for the shipped network, or an exported
            file (.jax, .onnx, .xml).
        source: Video file, folder of pictures, number of a camera, address
            (rtsp://...), or "synthetic"; folder of videos, or a pattern in quotes.
        out: Folder for the results, new or empty; of several videos, also one that an
            earlier run did not finish.
        format: Labels as palette PNGs, as COCO annotations with run lengths, as a
            folder that CVAT imports as "Segmentation mask 1.1", or as NumPy arrays.
        overlay: Write the overlay video.
        mode: Segment every frame (offline), or always the latest one (live).
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        memory: Use the network's memory; --no-memory for pictures that are no video.
        frames: Number of frames after which to stop; 0 for the end of the source.
        jobs: How many of several videos to segment at a time, each in a process.
        engine: What runs them: this machine's processes, or a Ray cluster.
    """

    checkpoint: str = "rendered"
    source: str = ""
    out: str = ""
    format: Literal["png", "coco", "cvat", "numpy"] = "png"
    overlay: bool = True
    mode: Literal["offline", "live"] = "offline"
    which: Literal["newest", "best"] = "newest"
    memory: bool = True
    frames: int = 0
    jobs: int = 1
    engine: Literal["processes", "ray"] = "processes"


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.predict"),
        description=__doc__ or "",
    )
    try:
        return predict(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)


def predict(flags: Flags) -> int:
    """Opens, segments, writes, prints a summary; returns the exit status."""
    for name in ("source", "out"):
        if not getattr(flags, name):
            raise ValueError(f"--{name} is missing; see --help")
    if flags.frames < 0:
        raise ValueError(f"--frames {flags.frames}: must be 0, for all, or more")
    if flags.jobs < 1:
        raise ValueError(f"--jobs {flags.jobs}: must be at least 1")

    from data_pipelines.annotations.shapes import require_pycocotools
    from dmnet_jax.predict.run import Options
    from dmnet_jax.predict.videos import find_videos

    about = {
        "checkpoint": flags.checkpoint,
        "source": flags.source,
        "memory": flags.memory,
    }
    options = Options(
        flags.mode == "live", flags.frames, flags.format, flags.overlay, about
    )
    if flags.format == "coco":
        require_pycocotools()  # before anything is loaded
    videos = find_videos(flags.source, Path(flags.out))
    return _many(flags, options, videos) if videos else _one(flags, options)


def _one(flags: Flags, options: "Options") -> int:
    out = Path(flags.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is not an empty folder; name another --out")
    if flags.jobs > 1 or flags.engine != "processes":
        raise ValueError(
            f"--source {flags.source} is one video; --jobs and --engine are for several"
        )

    from data_pipelines.prepare.progress import ProgressBar
    from dmnet_jax.predict.network import load_network
    from dmnet_jax.predict.run import run, told
    from dmnet_jax.predict.worker import length_of
    from dmnet_jax.process import StopRequest
    from dmnet_jax.video.sources import open_source

    source = open_source(flags.source)
    network = load_network(flags.checkpoint, flags.which, memory=flags.memory)
    total = None if options.live else length_of(source, flags.frames)
    bar = ProgressBar()

    def progress(done: int) -> None:
        if total:
            bar.show(done, max(done, total))

    with StopRequest() as stop:
        try:
            found = run(network, source, out, options, lambda: stop.requested, progress)
        finally:
            bar.clear()
    if found is None:
        print("stopped before the first frame; nothing was written")
        return stop.exit_code
    print(printable(told(found, out)))
    if found["lost"]:
        print(printable(f"error: {flags.source}: {found['lost']}"), file=sys.stderr)
        return 1
    return stop.exit_code


def _many(flags: Flags, options: "Options", videos: Sequence["Video"]) -> int:
    """Several videos, each in a folder of its own; those that are there are left."""
    if options.live:
        raise ValueError(f"--source {flags.source}: --mode live is for one source")

    from dmnet_jax.predict.worker import Request, left_over

    checkpoint = flags.checkpoint
    if Path(checkpoint).exists():
        checkpoint = os.path.abspath(checkpoint)
    out = os.path.abspath(flags.out)
    request = Request(checkpoint, flags.which, out, options, memory=flags.memory)
    videos = [video._replace(source=os.path.abspath(video.source)) for video in videos]
    request, left = left_over(request, videos)
    if len(left) < len(videos):
        print(f"{len(videos) - len(left)} of {len(videos)} videos are finished already")
    return _segmented(flags, request, left) if left else 0


def _segmented(flags: Flags, request: "Request", left: Sequence["Video"]) -> int:
    import time

    from data_pipelines.prepare.progress import ProgressBar
    from dmnet_jax.predict import many
    from dmnet_jax.process import StopRequest

    bar, began, came = ProgressBar(), time.monotonic(), Counter[str]()

    def progress(done: int, total: int | None) -> None:
        if total:
            bar.show(done, max(done, total))

    with StopRequest() as stop:

        def stopping() -> bool:
            return stop.requested

        if flags.engine == "ray":
            outcomes = many.on_ray(request, left, flags.jobs, stopping)
        elif flags.jobs > 1:
            outcomes = many.in_processes(request, left, flags.jobs, stopping)
        else:
            outcomes = many.in_turn(request, left, stopping, progress)
        for outcome in outcomes:
            if outcome.status != "stopped":
                came[outcome.status] += 1
                bar.log(printable(many.told(outcome, came.total(), len(left), began)))
        bar.clear()
    bad = came["failed"] + came["lost"]
    done = f"{came['done']} of {len(left)} videos segmented"
    print(f"{flags.out}: {done}, {bad} with errors")
    if stop.requested:
        print("stopped; finished videos are kept, the same command does the rest")
    return stop.exit_code or min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
