"""The two ways through a source: every frame, or always the latest."""

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dmnet_jax.checkpoint.provenance import versions
from dmnet_jax.predict.formats import Format
from dmnet_jax.predict.network import Network
from dmnet_jax.predict.outputs import Outputs
from dmnet_jax.streaming import Policy, Session
from dmnet_jax.video.capture import Every, Latest, first_frame
from dmnet_jax.video.sources import RATE, Folder, Source, SourceError

OFFLINE = Policy(skip_blank=False, skip_frozen=False, other_sizes="letterbox")
"""Nothing is skipped, so that labels are those of `evaluate.py`."""

LIVE = Policy(max_gap=1.0, other_sizes="letterbox")
SILENCE = 2.0
"""Seconds without a frame after which a live run says so."""


@dataclass(frozen=True)
class Options:
    """How to go through a source, and what to write of it.

    Attributes:
        live: the latest frame wins; else every frame.
        frames: at most so many; 0: all.
        form: of the labels.
        overlay: whether to draw the overlay video.
        about: for the summary.
    """

    live: bool = False
    frames: int = 0
    form: Format = "png"
    overlay: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def run(
    network: Network,
    source: Source,
    out: Path,
    options: Options,
    stopping: Callable[[], bool],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any] | None:
    """Segments a source into files in `out`.

    Args:
        network: of `load_network`.
        source: of `open_source`.
        out: folder for the files.
        options: how.
        stopping: asked before each frame, and while one is waited for; True ends in
            good order.
        progress: called after each frame with how many there were.

    Returns:
        The summary, whose "lost" says why the source was lost before its end; None if
        it was stopped before the first frame, and nothing was written.

    Raises:
        ValueError: nothing could be read, or not written.
    """
    first = first_frame(source, stopping)
    if first is None:
        return None
    size = first.image.shape[:2]
    rate = source.rate or RATE
    deadline = 1 / rate if options.live else None
    policy = LIVE if options.live else OFFLINE
    names = {}
    if isinstance(source, Folder):
        names = {path.stem: path.name for path in source.paths}
    counts: dict[str, int] = {}
    lost, summary = "", {}
    with network.session(size, policy=policy, deadline=deadline) as session:
        form = (options.form, options.overlay, names)
        outputs = Outputs(out, network.classes, rate, *form)
        began = time.monotonic()
        way = _live if options.live else _offline
        frames = way(session, source, outputs, counts, stopping)
        try:
            with contextlib.closing(frames):
                for _ in frames:
                    progress(outputs.written)
                    if stopping() or outputs.written == options.frames:
                        break
        except SourceError as error:
            lost = str(error)
        finally:
            seconds = time.monotonic() - began
            summary = {
                **options.about,
                "mode": "live" if options.live else "offline",
                "format": options.form,
                "frame_size": list(size),
                "network_size": list(network.size),
                "frames_written": outputs.written,
                "wall_seconds": round(seconds, 3),
                "frames_a_second": round(outputs.written / max(seconds, 1e-9), 3),
                **counts,
                "lost": lost,
                "session": session.stats(),
                "weights_sha256": network.sha256,
                "versions": versions(),
            }
            outputs.close(summary)
    return summary


def told(summary: dict[str, Any], out: Path) -> str:
    """The summary in a few lines."""
    session = summary["session"]
    latency = session["latency"]
    known = latency["p50_ms"] is not None
    times = " ".join(
        f"{name} {latency[f'{name}_ms']:.1f}" if known else f"{name} n/a"
        for name in ("p50", "p95", "p99", "max")
    )
    rules = ("refused", "late", "blank", "frozen", "suspect", "gaps", "letterboxed")
    seen = [f"{name} {session[name]}" for name in rules if session[name]]
    lines = [
        f"{summary['frames_written']} frames in {summary['wall_seconds']:.1f} s "
        f"({summary['frames_a_second']:.1f} a second, files included)",
        f"latency, ms: {times}",
    ]
    if "dropped" in summary:
        lines.append(
            f"captured {summary['captured']}, dropped {summary['dropped']}, deadline "
            f"missed {latency['deadline_misses']}, silences {summary['silences']}, "
            f"camera lost {summary['losses']}"
        )
    faults = {
        "undecodable": "packets that gave no frame",
        "clock_jumps": "jumps of the clock that were bridged",
    }
    seen += [
        f"{text} {summary[name]}" for name, text in faults.items() if summary.get(name)
    ]
    lines += [", ".join(seen)] if seen else []
    return "\n".join([*lines, f"{out}"])


def _offline(
    session: Session,
    source: Source,
    outputs: Outputs,
    counts: dict[str, int],
    stopping: Callable[[], bool],
) -> Generator[None, None, None]:
    counts.update(faults_of(source))
    began = None
    with Every(source) as frames:
        while (timed := frames.next(stopping=stopping)) is not None:
            captured = timed.captured
            began = captured.seconds if began is None else began
            result = session.step(captured.image, damage=captured.damage)
            outputs.add(captured, result, captured.seconds - began)
            counts.update(faults_of(source))
            yield


def _live(
    session: Session,
    source: Source,
    outputs: Outputs,
    counts: dict[str, int],
    stopping: Callable[[], bool],
) -> Generator[None, None, None]:
    counts.update(captured=0, dropped=0, losses=0, silences=0, **faults_of(source))
    began = None
    with Latest(source) as latest:
        while True:
            try:
                timed = latest.next(SILENCE, stopping)
            except TimeoutError as error:
                counts["silences"] += 1
                print(f"{error}; waiting", flush=True)
                yield
                continue
            finally:
                counts.update(
                    captured=latest.captured,
                    dropped=latest.dropped,
                    losses=latest.losses,
                    **faults_of(source),
                )
            if timed is None:
                return
            captured, arrived = timed
            began = arrived if began is None else began
            result = session.step(captured.image, arrived, captured.damage)
            age = time.monotonic() - arrived
            outputs.add(captured, result, arrived - began, age_ms=round(1e3 * age, 3))
            yield


def faults_of(source: Source) -> dict[str, int]:
    """What a source counts of its own: "undecodable" packets, "clock_jumps"."""
    return dict(getattr(source, "faults", {}))
