"""Segments a video and writes masks, an overlay video and a record of each frame.

    python -m dmnet_jax.predict --source video.mp4 --out DIR
    python -m dmnet_jax.predict --checkpoint RUN --source 0 --mode live --out DIR

Sources: a video file, a folder of pictures, the number of a camera, an address
(rtsp://...), or "synthetic". DIR receives overlay.mp4 (pictures in overlay/ without
PyAV), masks/*.png (palette index is class), frames.jsonl (one line per frame) and
summary.json. --mode offline segments every frame. --mode live takes the latest frame,
drops and counts those in between, and reconnects to a lost camera. Ctrl-C ends it with
all files complete. For research use; not a medical device.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.io.names import shown
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to segment, and how.

    Attributes:
        checkpoint: Run directory, or "rendered" for the shipped network.
        source: Video file, folder of pictures, number of a camera, address
            (rtsp://...), or "synthetic".
        out: Folder for the results, new or empty.
        mode: Segment every frame (offline), or always the latest one (live).
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        frames: Number of frames after which to stop; 0 for the end of the source.
    """

    checkpoint: str = "rendered"
    source: str = ""
    out: str = ""
    mode: Literal["offline", "live"] = "offline"
    which: Literal["newest", "best"] = "newest"
    frames: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program("python -m dmnet_jax.predict"),
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
    out = Path(flags.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is not an empty folder; name another --out")

    from dmnet_jax.predict.run import Options, run
    from dmnet_jax.process import StopRequest
    from dmnet_jax.streaming import load_run
    from dmnet_jax.video.sources import open_source

    source = open_source(flags.source)
    trained = load_run(flags.checkpoint, flags.which)
    about = {"checkpoint": flags.checkpoint, "source": flags.source}
    options = Options(flags.mode == "live", flags.frames, about)
    with StopRequest() as stop:
        lost = run(trained, source, out, options, lambda: stop.requested)
    if lost:
        print(shown(f"error: {flags.source}: {lost}"), file=sys.stderr)
        return 1
    return stop.exit_code


if __name__ == "__main__":
    sys.exit(main())
