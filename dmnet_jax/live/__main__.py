"""Serves a page that shows a network at work on live video.

    python -m dmnet_jax.live
    python -m dmnet_jax.live --checkpoint RUN --source video.mp4

The default source is the built-in synthetic video, the default network the shipped one,
which was trained on rendered scenes only. The page shows the video, masks, the contents
of the memories, confidence and similarity with their thresholds, and latency. It can
pause, reset the memory, change thresholds and degrade the input. It is served to this
machine only. For research use; not a medical device.
"""

import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from data_pipelines.io.names import shown
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program

if TYPE_CHECKING:
    from dmnet_jax.live.engine import Engine
    from dmnet_jax.live.server import Server

SHUTDOWN_DELAY = 2.0
"""Seconds for which the page is served after the end of the video."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to show.

    Attributes:
        checkpoint: Run directory, or "rendered" for the shipped network.
        source: Video file, folder of images, number of a camera, address (rtsp://...),
            or "synthetic".
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        port: Port of the page; 0 for any free one.
    """

    checkpoint: str = "rendered"
    source: str = "synthetic"
    which: Literal["newest", "best"] = "newest"
    port: int = 8765


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program("python -m dmnet_jax.live"),
        description=__doc__ or "",
    )
    try:
        return serve(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)


def serve(flags: Flags) -> int:
    """Serves the page until Ctrl-C or the end of the video.

    Returns:
        The exit status: 1 if the engine failed.
    """
    from dmnet_jax.live.engine import Engine
    from dmnet_jax.live.server import Server
    from dmnet_jax.streaming import load_run
    from dmnet_jax.video.sources import open_source

    source = open_source(flags.source)
    trained = load_run(flags.checkpoint, flags.which)
    about = {"source": flags.source, "checkpoint": flags.checkpoint}
    # The server is entered first, so that nothing starts if the port is in use.
    engine = Engine(trained, source, about)
    with Server(engine, flags.port) as server, engine:
        print(f"{flags.checkpoint}: open {server.address}", flush=True)
        watch = threading.Thread(target=_watch, args=(engine, server), daemon=True)
        watch.start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    if engine.failure:
        print(shown(f"error: {flags.source}: {engine.failure}"), file=sys.stderr)
    return 1 if engine.failure else 0


def _watch(engine: "Engine", server: "Server") -> None:
    """Stops the server after the engine has ended and the page has shown the end."""
    engine.join()
    time.sleep(SHUTDOWN_DELAY)
    server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
