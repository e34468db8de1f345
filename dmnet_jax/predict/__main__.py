"""Segments a video and writes what was seen.

    python -m dmnet_jax.predict --source video.mp4 --out DIR
    python -m dmnet_jax.predict --checkpoint RUN --source 0 --mode live --out DIR

Sources: a video file, a folder of pictures, a camera's number, an address
(rtsp://...), or "synthetic". Into DIR go overlay.mp4 (pictures in overlay/ where PyAV
is missing), masks/*.png (index is class), frames.jsonl (a line a frame) and
summary.json. offline: every frame, none skipped. live: the latest frame wins, those
between are dropped and counted, and a lost camera is looked for again. Ctrl-C ends it
with all files complete. For research use; not a medical device.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_pipelines.io.names import shown
from dmnet_jax.cli.arguments import exit_with_error, parse_flags


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to segment, and how.

    Attributes:
        checkpoint: Run directory; "rendered" is the shipped network.
        source: Video file, folder of pictures, camera's number, address, "synthetic".
        out: Folder for the results; new or empty.
        mode: Every frame, or the latest one.
        which: Newest (the finished network), or best on the validation videos.
        frames: Stop after so many; 0: at the source's end.
    """

    checkpoint: str = "rendered"
    source: str = ""
    out: str = ""
    mode: Literal["offline", "live"] = "offline"
    which: Literal["newest", "best"] = "newest"
    frames: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(argv, Flags(), prog="dmnet-predict", description=__doc__ or "")
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
