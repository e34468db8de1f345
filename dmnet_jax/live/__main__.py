"""Serves a page that shows a network at work on live video.

    python -m dmnet_jax.live
    python -m dmnet_jax.live --checkpoint RUN --source video.mp4

The default source is the built-in synthetic video, the default network the shipped one,
which was trained on rendered scenes only. The page shows the video, masks, the contents
of the memories, confidence and similarity with their thresholds, and latency. It can
pause and seek, open files and cameras, record, reset the memory, change thresholds,
degrade the input, and show the network without its memory beside it. It is served to
this machine only, unless --host is given. For research use; not a medical device.
"""

import dataclasses
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_pipelines.io.names import printable
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program_name

if TYPE_CHECKING:
    from dmnet_jax.live.engine import Engine
    from dmnet_jax.live.server import Server

SHUTDOWN_DELAY = 2.0
"""Seconds for which the page is served after the end of the video."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to show.

    Attributes:
        checkpoint: Run directory, exported file (.safetensors, .jax, .onnx, .xml), or
            "rendered" or "rendered-fast" for the shipped networks.
        source: Video file, folder of images, number of a camera, address
            (rtsp://...), or "synthetic".
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        size: Height and width of the network's input, multiples of 32, larger for thin
            instruments. Default: the training size; with the shipped networks, in the
            aspect ratio of the video.
        scales: Further sizes, relative to the network's input, at which each frame is
            segmented; the predictions are averaged. "0.75 1.5" is more accurate and
            takes 4 times as long.
        port: Port of the page; 0 for any free one.
        host: Address of the interface to serve on. Other machines can then open the
            page with the token in the printed address. It is not encrypted.
    """

    checkpoint: str = "rendered"
    source: str = "synthetic"
    which: Literal["newest", "best"] = "newest"
    size: tuple[int, int] | None = None
    scales: tuple[float, ...] = ()
    port: int = 8765
    host: str = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.live"),
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
    from dmnet_jax.live.server import LOOPBACK, Server
    from dmnet_jax.predict.network import load_network
    from dmnet_jax.video.sources import open_source

    source = open_source(flags.source)
    load = partial(
        load_network,
        flags.checkpoint,
        flags.which,
        size=flags.size,
        scales=flags.scales,
    )
    network = load()
    has_memory = any(network.memories) or network.state
    engine = Engine(
        network,
        source,
        {"source": flags.source, "checkpoint": flags.checkpoint},
        sources=other_sources(flags.source),
        single=partial(load, memory=False) if network.compiled and has_memory else None,
    )
    # The server first: without a free port, nothing should start.
    with Server(engine, flags.port, flags.host) as server, engine:
        print(f"{flags.checkpoint}: open {server.address}", flush=True)
        if flags.host == LOOPBACK:
            port = server.server_port
            print(f"from another machine: ssh -L {port}:{LOOPBACK}:{port} THIS_MACHINE")
        watch = threading.Thread(target=_watch, args=(engine, server), daemon=True)
        watch.start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    if engine.failure:
        print(printable(f"error: {flags.source}: {engine.failure}"), file=sys.stderr)
    return 1 if engine.failure else 0


def other_sources(first: str) -> dict[str, str]:
    """Returns what the page may open besides the first source, by the name shown.

    Only the cameras of Linux can be listed without opening them; elsewhere the first
    two are offered.
    """
    numbers = ["0", "1"]
    if sys.platform.startswith("linux"):
        paths = Path("/dev").glob("video*")
        numbers = sorted(path.name.removeprefix("video") for path in paths)
    sources = {"rendered video": "synthetic"}
    sources |= {f"camera {number}": number for number in numbers if number.isdecimal()}
    return {name: text for name, text in sources.items() if text != first}


def _watch(engine: "Engine", server: "Server") -> None:
    """Stops the server after the engine has ended and the page has shown the end."""
    engine.join()
    time.sleep(SHUTDOWN_DELAY)
    server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
