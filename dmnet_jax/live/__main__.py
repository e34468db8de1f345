"""Opens a page on which a network is watched at work.

    python -m dmnet_jax.live
    python -m dmnet_jax.live --checkpoint RUN --source video.mp4

Without a source, the built-in synthetic video; without a checkpoint, the shipped
network, which was trained on rendered scenes alone. Video, masks, what the memories
hold, confidence and similarity with their thresholds, latency; pause, forget, change
thresholds, degrade the input. The page is served to this machine alone. For research
use; not a medical device.
"""

import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from data_pipelines.io.names import shown
from dmnet_jax.cli.arguments import exit_with_error, parse_flags

if TYPE_CHECKING:
    from dmnet_jax.live.engine import Engine
    from dmnet_jax.live.server import Server

LAST_WORDS = 2.0
"""Seconds for which the page is still served after the video stopped."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to watch.

    Attributes:
        checkpoint: Run directory; "rendered" is the shipped network.
        source: Video file, folder of pictures, camera's number, address, "synthetic".
        which: Newest (the finished network), or best on the validation videos.
        port: Of the page; 0: any that is free.
    """

    checkpoint: str = "rendered"
    source: str = "synthetic"
    which: Literal["newest", "best"] = "newest"
    port: int = 8765


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv, Flags(), prog="python -m dmnet_jax.live", description=__doc__ or ""
    )
    try:
        return serve(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)


def serve(flags: Flags) -> int:
    """Serves the page until Ctrl-C, or until there is nothing more to show.

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
    # The server first: without a port nothing is to begin.
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
    """Ends the server after the engine has ended, once the page had time to say so."""
    engine.join()
    time.sleep(LAST_WORDS)
    server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
