"""Measures how fast clips are read: `python -m data_pipelines.benchmark --data DIR`.

Reads clips as the paper's network trains on, with five local and four past frames, from
prepared data: first decoded for every clip, then from memory. With `--data rendered`,
renders single frames as the shipped network was trained on.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence

from data_pipelines.command_line import fail, parse_flags
from data_pipelines.frames import FrameSource, cache_frames, resize_frames
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.loader import ClipLoader
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.prepared import open_prepared
from data_pipelines.sources.rendered import STREAM_RATE, RenderedVideos
from data_pipelines.synthetic.render import check_scene

RENDERED = "rendered"
"""Value of `Flags.data` for rendered scenes."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to measure.

    Attributes:
        data: Prepared folder, or "rendered" for an endless stream of scenes.
        threads: Number of reading threads, or of rendering processes.
        batch_size: Clips per batch.
        seconds: Length of each measurement.
        size: Height and width of rendered frames.
    """

    data: str
    threads: int = 2
    batch_size: int = 4
    seconds: float = 5.0
    size: tuple[int, int] = (256, 320)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (2 for a user's error)."""
    args = parse_flags(
        argv,
        Flags,
        prog="python -m data_pipelines.benchmark",
        description="Measure how many nine-frame clips per second are read from "
        "prepared data, decoded and cached, or how many frames are rendered. For "
        "research use; not a medical device.",
    )
    if min(args.threads, args.batch_size) < 1 or not 0 < args.seconds < math.inf:
        return fail("--threads, --batch-size and --seconds must be positive")
    try:
        if args.data == RENDERED:
            rate = frames_rendered_per_second(
                args.size,
                workers=args.threads,
                batch_size=args.batch_size,
                seconds=args.seconds,
            )
            print(
                f"rendered: {rate:.1f} frames/s of {args.size[0]}x{args.size[1]}, "
                f"{args.threads} process{'es' * (args.threads != 1)}"
            )
            return 0
        source = open_prepared(args.data)
        size = source.manifest.frames[0].image_size
        decoded = resize_frames(source, size)
        memory = cache_frames(decoded)
        for name, frames in (("decoded each time", decoded), ("in memory", memory)):
            if frames is memory:
                _read_all(memory)
            rate = clips_per_second(
                frames,
                threads=args.threads,
                batch_size=args.batch_size,
                seconds=args.seconds,
            )
            print(
                f"{name}: {rate:.1f} clips/s of 9 frames {size[0]}x{size[1]}, "
                f"{args.threads} threads",
                flush=True,
            )
    except (ValueError, OSError) as error:
        return fail(error)
    return 0


def clips_per_second(
    source: FrameSource, *, threads: int, batch_size: int, seconds: float
) -> float:
    """Measures nine-frame clips per second, without augmentation.

    Args:
        source: the frames, all of one size.
        threads: reading threads.
        batch_size: clips per batch.
        seconds: minimum duration of the measurement.
    """
    spec = ClipSpec(local_size=4, num_past=4)
    loader = ClipLoader(source, spec, batch_size=batch_size, seed=0, threads=threads)
    return _rate(loader, seconds)


def frames_rendered_per_second(
    size: tuple[int, int], *, workers: int, batch_size: int, seconds: float
) -> float:
    """Measures rendered and augmented frames per second, each scene shown 16 times.

    Args:
        size: (height, width) of the frames.
        workers: rendering processes.
        batch_size: frames per batch, of as many scenes.
        seconds: minimum duration of the measurement.

    Raises:
        ValueError: the size is invalid.
    """
    check_scene(0, 0, size, STREAM_RATE)
    stream = SceneStream(
        RenderedVideos(0, 1, 1, size),
        ClipSpec(local_size=0, num_past=0),
        batch_size=batch_size,
        seed=0,
        size=size,
        augment=Augment(scale=(0.6, 2.2), photometric=0.4),
        hold=16,
        workers=workers,
    )
    return _rate(stream, seconds)


def _rate(loader: ClipLoader | SceneStream, seconds: float) -> float:
    """Measures clips per second."""
    start, clips = 0.0, -loader.batch_size
    # The first batch starts threads and allocates memory; it is not timed.
    for _ in loader.iterate(0, sys.maxsize):
        start = start or time.monotonic()
        clips += loader.batch_size
        if time.monotonic() - start >= seconds and clips:
            break
    return clips / (time.monotonic() - start)


def _read_all(source: FrameSource) -> None:
    for number, video in enumerate(source.videos):
        for frame in range(len(video.frames)):
            source.image(number, frame)


if __name__ == "__main__":
    sys.exit(main())
