"""Implementation of `evaluate.py --corrupt bursts`."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines import corruption
from data_pipelines.frames import FrameSource
from dmnet_jax.checkpoint.provenance import versions, weights_sha256
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets import open_videos
from dmnet_jax.evaluation.bursts import report
from dmnet_jax.evaluation.bursts.benchmark import (
    FOREIGN,
    FOREIGN_FRAMES,
    SINGLE,
    run_bursts,
)
from dmnet_jax.evaluation.bursts.summary import summarized
from dmnet_jax.evaluation.videos import Scoring
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.process import heartbeat


class BurstOptions(NamedTuple):
    """The settings of a run.

    Attributes:
        seed: seed of the bursts.
        passes: number of corrupted passes over each video.
        kinds: kinds of corruption. Empty: all.
        controls: whether to score the control rows as well.
    """

    seed: int = 0
    passes: int = 4
    kinds: tuple[str, ...] = ()
    controls: bool = False


def run(
    model: VideoSegmenter,
    variables: Any,
    videos: FrameSource,
    others: FrameSource | None,
    options: BurstOptions,
    scoring: Scoring,
    about: Mapping[str, Any],
    out: Path,
) -> str:
    """Runs the benchmark and writes its files.

    Args:
        model: the network.
        variables: variables of the network.
        videos: videos at the network's size.
        others: videos that provide the other video's memory. None: `videos`.
        options: the settings.
        scoring: the scoring rules.
        about: provenance of the weights.
        out: the output folder.

    Returns:
        The tables, with notes on what was done and skipped.

    Raises:
        ValueError: a setting is invalid, or nothing can be scored.
    """
    for flag, value, least in (
        ("seed", options.seed, 0),
        ("passes", options.passes, 1),
    ):
        if not least <= value < 2**63:
            raise ValueError(f"--corrupt-{flag} is {value}; it must be {least} or more")
    kinds = options.kinds or corruption.KINDS
    lengths = [len(info.frames) for info in videos.videos]
    plan = corruption.plan(
        lengths, seed=options.seed, passes=options.passes, kinds=kinds
    )
    with heartbeat(partial(print, file=sys.stderr, flush=True), "scoring bursts"):
        scored = run_bursts(
            model,
            variables,
            videos,
            plan,
            controls=options.controls,
            others=others,
            scoring=scoring,
        )
    rows = summarized(scored)
    bursts = [burst for schedules in plan for each in schedules for burst in each]
    settings = {
        **options._asdict(),
        "kinds": list(kinds),
        "trained_kinds": list(corruption.TRAINED),
        "unseen_kinds": list(corruption.UNSEEN),
        "bursts": len(bursts),
        "videos": [info.name for info in videos.videos],
        "foreign_frames": FOREIGN_FRAMES,
        "scoring": scoring._asdict(),
    }
    network = {
        "weights_sha256": weights_sha256(variables),
        "versions": versions(),
        "about": about,
    }
    report.write(out, scored, rows, videos, {"bursts": settings, **network})
    notes = [
        f"{len(bursts)} bursts in {options.passes} passes over "
        f"{', '.join(settings['videos'])}; seed {options.seed}"
    ]
    if options.controls and SINGLE not in rows:
        notes.append("This network has no memory: it equals the single-frame row.")
    elif options.controls and FOREIGN not in rows:
        notes.append("There is no other video whose memory could be used.")
    return "\n".join([report.tables(rows), "", *notes])


def training_videos(data: DataConfig, about: Mapping[str, Any]) -> FrameSource | None:
    """Opens the run's first training video, for its memory; None if not available."""
    try:
        return open_videos(data, about["train_videos"][:1])
    except (LookupError, OSError, ValueError):
        return None
