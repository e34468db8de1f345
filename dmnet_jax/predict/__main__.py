"""Segments videos and writes masks, an overlay video and a record of each frame.

    python -m dmnet_jax.predict --source video.mp4 --out DIR
    python -m dmnet_jax.predict --checkpoint RUN --source 0 --mode live --out DIR
    python -m dmnet_jax.predict --source VIDEOS --out DIR --format coco --jobs 4

Sources: a video file, a folder of images, a camera number, an address (rtsp://...), or
"synthetic". DIR receives overlay.mp4 (images in overlay/ without PyAV), masks/*.png
with the class as palette index, frames.jsonl with one line per frame, and
summary.json. --mode offline segments every frame. --mode live takes the latest frame,
drops and counts those in between, and reconnects to a lost camera. Ctrl-C ends it with
all files complete. For a folder of videos, or a pattern in quotes ("day*/*.mp4"), DIR
receives a complete folder for each video; a second run segments the remaining videos.
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
        checkpoint: Run directory, exported file (.safetensors, .jax, .onnx, .xml), or
            "rendered" or "rendered-fast" for the shipped networks.
        source: Video file, folder of images, camera number, address (rtsp://...), or
            "synthetic"; folder of videos, or a pattern in quotes.
        out: Folder for the results, new or empty; for several videos, also one with
            results of an unfinished run.
        format: Labels as palette PNGs, as COCO annotations with run lengths, as a
            folder that CVAT imports as "Segmentation mask 1.1", or as NumPy arrays.
        overlay: Write the overlay video.
        mode: Segment every frame (offline), or always the latest one (live).
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        memory: Use the network's memory; --no-memory for images that are not
            consecutive frames.
        size: Height and width of the network's input, multiples of 32, larger for thin
            instruments. Default: the training size; with the shipped networks, in the
            aspect ratio of the video.
        scales: Further sizes, relative to the network's input, at which each frame is
            segmented; the predictions are averaged. "0.75 1.5" is more accurate and
            takes 4 times as long.
        frames: Number of frames after which to stop; 0 for the end of the source.
        jobs: Number of videos to segment at a time, each in its own process.
        engine: Where to segment several videos: in processes of this machine, or on a
            Ray cluster.
    """

    checkpoint: str = "rendered"
    source: str = ""
    out: str = ""
    format: Literal["png", "coco", "cvat", "numpy"] = "png"
    overlay: bool = True
    mode: Literal["offline", "live"] = "offline"
    which: Literal["newest", "best"] = "newest"
    memory: bool = True
    size: tuple[int, int] | None = None
    scales: tuple[float, ...] = ()
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
    """Segments the source and prints a summary; returns the exit status."""
    for name in ("source", "out"):
        if not getattr(flags, name):
            raise ValueError(f"--{name} is missing; see --help")
    if flags.frames < 0:
        raise ValueError(f"--frames is {flags.frames}; it must be at least 0 (0: all)")
    if flags.jobs < 1:
        raise ValueError(f"--jobs is {flags.jobs}; it must be at least 1")

    from data_pipelines.annotations.shapes import require_pycocotools
    from dmnet_jax.predict.run import Options
    from dmnet_jax.predict.videos import find_videos

    about = {
        "checkpoint": flags.checkpoint,
        "source": flags.source,
        "memory": flags.memory,
        "scales": list(flags.scales),
    }
    options = Options(
        flags.mode == "live", flags.frames, flags.format, flags.overlay, about
    )
    if flags.format == "coco":
        require_pycocotools()  # fail early if it is not installed
    videos = find_videos(flags.source, Path(flags.out))
    return _many(flags, options, videos) if videos else _one(flags, options)


def _one(flags: Flags, options: "Options") -> int:
    out = Path(flags.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is not an empty folder; choose another --out")
    if flags.jobs > 1 or flags.engine != "processes":
        raise ValueError(
            f"--source {flags.source} is one video; --jobs and --engine are for several"
        )

    from data_pipelines.prepare.progress import ProgressBar
    from dmnet_jax.predict.network import load_network
    from dmnet_jax.predict.run import format_summary, run
    from dmnet_jax.predict.worker import count_frames
    from dmnet_jax.process import StopRequest
    from dmnet_jax.video.sources import open_source

    source = open_source(flags.source)
    network = load_network(
        flags.checkpoint,
        flags.which,
        memory=flags.memory,
        size=flags.size,
        scales=flags.scales,
    )
    total = None if options.live else count_frames(source, flags.frames)
    bar = ProgressBar()

    def progress(done: int) -> None:
        if total:
            bar.show(done, max(done, total))

    with StopRequest() as stop:
        try:
            summary = run(
                network, source, out, options, lambda: stop.requested, progress
            )
        finally:
            bar.clear()
    if summary is None:
        print("stopped before the first frame; nothing was written")
        return stop.exit_code
    print(printable(format_summary(summary, out)))
    if summary["lost"]:
        print(printable(f"error: {flags.source}: {summary['lost']}"), file=sys.stderr)
        return 1
    return stop.exit_code


def _many(flags: Flags, options: "Options", videos: Sequence["Video"]) -> int:
    """Segments several videos, each into its own folder; skips finished ones."""
    if options.live:
        raise ValueError(f"--source {flags.source}: --mode live is for one source")

    from dmnet_jax.predict.worker import Request, unfinished_videos

    checkpoint = flags.checkpoint
    if Path(checkpoint).exists():
        checkpoint = os.path.abspath(checkpoint)
    out = os.path.abspath(flags.out)
    request = Request(
        *(checkpoint, flags.which, out, options),
        memory=flags.memory,
        size=flags.size,
        scales=flags.scales,
    )
    videos = [video._replace(source=os.path.abspath(video.source)) for video in videos]
    request, unfinished = unfinished_videos(request, videos)
    finished = len(videos) - len(unfinished)
    if finished:
        print(f"{finished} of {len(videos)} videos are already finished")
    return _run_videos(flags, request, unfinished) if unfinished else 0


def _run_videos(flags: Flags, request: "Request", videos: Sequence["Video"]) -> int:
    import time

    from data_pipelines.prepare.progress import ProgressBar
    from dmnet_jax.predict import many
    from dmnet_jax.process import StopRequest

    bar, start, counts = ProgressBar(), time.monotonic(), Counter[str]()

    def progress(done: int, total: int | None) -> None:
        if total:
            bar.show(done, max(done, total))

    with StopRequest() as stop:

        def stopping() -> bool:
            return stop.requested

        if flags.engine == "ray":
            outcomes = many.on_ray(request, videos, flags.jobs, stopping)
        elif flags.jobs > 1:
            outcomes = many.in_processes(request, videos, flags.jobs, stopping)
        else:
            outcomes = many.in_sequence(request, videos, stopping, progress)
        for outcome in outcomes:
            if outcome.status != "stopped":
                counts[outcome.status] += 1
                done, total = counts.total(), len(videos)
                bar.log(printable(many.format_outcome(outcome, done, total, start)))
        bar.clear()
    errors = counts["failed"] + counts["lost"]
    done = f"{counts['done']} of {len(videos)} videos segmented"
    print(f"{flags.out}: {done}, {errors} with errors")
    if stop.requested:
        print("stopped; run the same command again to segment the remaining videos")
    return stop.exit_code or min(errors, 1)


if __name__ == "__main__":
    sys.exit(main())
