"""Prediction of one source: every frame (offline) or always the latest (live)."""

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
"""Policy that skips no frames, so that labels equal those of `evaluate.py`."""

LIVE = Policy(max_gap=1.0, other_sizes="letterbox")
SILENCE = 2.0
"""Seconds without a frame after which a live run prints a message."""


@dataclass(frozen=True)
class Options:
    """Options of a prediction.

    Attributes:
        live: whether to segment only the latest frame instead of every frame.
        frames: maximum number of frames; 0 for all.
        form: format of the labels.
        overlay: whether to write the overlay video.
        about: further fields of the summary.
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
        network: a network from `load_network`.
        source: a source from `open_source`.
        out: folder for the files.
        options: options of the prediction.
        stopping: called before each frame and while waiting for one; if it returns
            True, the run ends with all files complete.
        progress: called after each frame with the number of frames so far.

    Returns:
        The summary. Its "lost" is the reason if the source was lost before its end.
        None if the run was stopped before the first frame and nothing was written.

    Raises:
        ValueError: nothing could be read, or writing failed.
    """
    first = first_frame(source, stopping)
    if first is None:
        return None
    size = first.image.shape[:2]
    rate = source.rate or RATE
    deadline = 1 / rate if options.live else None
    policy = LIVE if options.live else OFFLINE
    file_names = {}
    if isinstance(source, Folder):
        file_names = {path.stem: path.name for path in source.paths}
    counts: dict[str, int] = {}
    lost, summary = "", {}
    with network.session(size, policy=policy, deadline=deadline) as session:
        outputs = Outputs(
            out,
            network.classes,
            rate,
            form=options.form,
            overlay=options.overlay,
            file_names=file_names,
        )
        start = time.monotonic()
        segment = _live if options.live else _offline
        frames = segment(session, source, outputs, counts, stopping)
        try:
            with contextlib.closing(frames):
                for _ in frames:
                    progress(outputs.written)
                    if stopping() or outputs.written == options.frames:
                        break
        except SourceError as error:
            lost = str(error)
        finally:
            seconds = time.monotonic() - start
            summary = {
                **options.about,
                "mode": "live" if options.live else "offline",
                "format": options.form,
                "frame_size": list(size),
                "network_size": list(session.program.interface.size),
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


def format_summary(summary: dict[str, Any], out: Path) -> str:
    """Formats the summary in a few lines."""
    session = summary["session"]
    latency = session["latency"]
    measured = latency["p50_ms"] is not None
    times = " ".join(
        f"{name} {latency[f'{name}_ms']:.1f}" if measured else f"{name} n/a"
        for name in ("p50", "p95", "p99", "max")
    )
    rules = ("refused", "late", "blank", "frozen", "suspect", "gaps", "letterboxed")
    events = [f"{name} {session[name]}" for name in rules if session[name]]
    lines = [
        f"{summary['frames_written']} frames in {summary['wall_seconds']:.1f} s "
        f"({summary['frames_a_second']:.1f} frames/s including file output)",
        f"latency, ms: {times}",
    ]
    if "dropped" in summary:
        lines.append(
            f"captured {summary['captured']}, dropped {summary['dropped']}, deadline "
            f"misses {latency['deadline_misses']}, timeouts {summary['silences']}, "
            f"camera losses {summary['losses']}"
        )
    faults = {
        "undecodable": "undecodable packets",
        "clock_jumps": "corrected clock jumps",
    }
    events += [
        f"{text} {summary[name]}" for name, text in faults.items() if summary.get(name)
    ]
    lines += [", ".join(events)] if events else []
    return "\n".join([*lines, f"{out}"])


def _offline(
    session: Session,
    source: Source,
    outputs: Outputs,
    counts: dict[str, int],
    stopping: Callable[[], bool],
) -> Generator[None, None, None]:
    counts.update(source_faults(source))
    start = None
    with Every(source) as frames:
        while (timed := frames.next(stopping=stopping)) is not None:
            captured = timed.captured
            start = captured.seconds if start is None else start
            result = session.step(captured.image, damage=captured.damage)
            outputs.add(captured, result, captured.seconds - start)
            counts.update(source_faults(source))
            yield


def _live(
    session: Session,
    source: Source,
    outputs: Outputs,
    counts: dict[str, int],
    stopping: Callable[[], bool],
) -> Generator[None, None, None]:
    counts.update(captured=0, dropped=0, losses=0, silences=0, **source_faults(source))
    start = None
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
                    **source_faults(source),
                )
            if timed is None:
                return
            captured, arrived = timed
            start = arrived if start is None else start
            result = session.step(captured.image, arrived, captured.damage)
            age = time.monotonic() - arrived
            outputs.add(captured, result, arrived - start, age_ms=round(1e3 * age, 3))
            yield


def source_faults(source: Source) -> dict[str, int]:
    """Returns a source's counts of "undecodable" packets and "clock_jumps"."""
    return dict(getattr(source, "faults", {}))
