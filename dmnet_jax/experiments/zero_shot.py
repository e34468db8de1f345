"""Scores a network on labeled video of a kind it was never trained on."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.corruption import KINDS, UNSEEN, Corrupted, plan
from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    FrameSource,
    resize_frames,
    select_videos,
)
from data_pipelines.io.files import write_text
from data_pipelines.sources.folder import open_folder
from dmnet_jax.cli.arguments import exit_with_error, parse_flags
from dmnet_jax.metrics import format_table

HELP = """Scores trained weights on folders of labeled video, without training.

    python -m dmnet_jax.experiments zero-shot --root DIR --masks parts --shaft 1 \\
        --manipulator 2
    python -m dmnet_jax.experiments zero-shot --checkpoint RUN --root DIR --instrument 5

DIR holds VIDEO/frames and VIDEO/MASKS. All instrument classes are merged and scored
against the background; where the labels tell parts apart, those are scored as well.
Frames keep their aspect. --bursts 2 also scores frames that are disturbed
(docs/bursts.md), --no-memory the network without it. For research use; not a
medical device."""


@dataclass(frozen=True)
class Flags:
    """What is scored, and which mask values mean what.

    Attributes:
        checkpoint: Run directory of a network that was trained on parts; "rendered" is
            the shipped one.
        root: Folder of the labeled videos.
        masks: Name of the mask folders.
        shaft: Mask values of shafts.
        manipulator: Mask values of wrists and claspers.
        instrument: Mask values of instruments whose parts are not told apart.
        ignore: Mask values that are not scored.
        videos: Names of videos, if not all.
        height: Rows that the network sees, a multiple of 32; columns follow.
        bursts: Passes over each video in which bursts of frames are disturbed.
        memory: Use the network's memory.
        which: Which checkpoint of the run.
        out: Folder for zero_shot.json and overlay pictures; empty for none.
    """

    checkpoint: str = "rendered"
    root: str = ""
    masks: str = "masks"
    shaft: tuple[int, ...] = ()
    manipulator: tuple[int, ...] = ()
    instrument: tuple[int, ...] = ()
    ignore: tuple[int, ...] = (255,)
    videos: tuple[str, ...] = ()
    height: int = 256
    bursts: int = 0
    memory: bool = True
    which: Literal["newest", "best"] = "newest"
    out: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog="python -m dmnet_jax.experiments zero-shot",
        description=HELP,
    )
    try:
        rows = score(flags)
        if flags.out:
            report = {"flags": dataclasses.asdict(flags), "videos": rows}
            path = Path(flags.out) / "zero_shot.json"
            write_text(path, json.dumps(report, indent=1) + "\n")
    except (ValueError, OSError) as error:
        exit_with_error(error)
    names = [name for name in rows[0] if name != "video"]
    cells = [
        [row["video"], *(f"{row[name]:.3f}" for name in names)]
        for row in [*rows, _mean(rows)]
    ]
    print(format_table(cells, ["video", *names]))
    return 0


def score(flags: Flags) -> list[dict[str, Any]]:
    """IoU of each video, pixels of all its frames pooled.

    Raises:
        ValueError: the flags, the network or the folder do not fit.
    """
    # After the command line, so that --help and mistakes in it answer at once.
    from dmnet_jax import evaluation
    from dmnet_jax.checkpoint.runs import load_run
    from dmnet_jax.evaluation import results

    if not flags.root:
        raise ValueError("--root DIR is missing; see --help")
    if flags.height < 32 or flags.height % 32:
        raise ValueError(f"--height is {flags.height}; use a multiple of 32")
    if flags.bursts < 0:
        raise ValueError(f"--bursts is {flags.bursts}; use 0 or more")
    if not flags.shaft + flags.manipulator + flags.instrument:
        raise ValueError("say which mask values are instruments: --instrument 1")
    network, variables, _, about = load_run(
        flags.checkpoint, flags.which, memory=flags.memory
    )
    names = [info["name"] for info in about["classes"]]
    if "shaft" not in names:
        raise ValueError(
            f"{flags.checkpoint}: its classes are {', '.join(names)}; a network that "
            "was trained on parts is needed"
        )
    rows = []
    opened = open_folder(
        flags.root,
        masks=flags.masks,
        videos=flags.videos or None,
        # Values are looked up here; the reader must pass them all.
        classes=[ClassInfo(f"value {value}", (0, 0, 0)) for value in range(255)],
        ignore=flags.ignore,
        allow_missing=True,
    )
    for info in opened.videos:
        source = _as_seen(select_videos(opened, [info.name]), flags.height)
        overlays = None
        if flags.out:
            overlays = results.Overlays(Path(flags.out) / info.name, source)
        counts = {"clean": np.zeros((3, 3), np.int64)}
        passes = plan([len(info.frames)], seed=0, passes=flags.bursts)
        if flags.bursts and not any(passes[0]):
            raise ValueError(
                f"{info.name}: no burst fits into {len(info.frames)} frames; videos "
                "need 10 or more, or leave --bursts out"
            )
        for number, schedules in enumerate([[()], *passes]):
            shown = Corrupted(source, schedules)
            for found in evaluation.predict_video(network, variables, shown, 0):
                burst = shown.burst(0, found.frame)
                if found.truth is not None and (burst or not number):
                    kind = burst.kind if burst else "clean"
                    truth = _values(found.truth, flags)
                    scored = _counted(found.label, truth, names.index("shaft"))
                    counts[kind] = counts.get(kind, 0) + scored
                if overlays is not None and not number:
                    overlays(0, found)
        if overlays is not None:
            overlays.finish()
        row = {"video": info.name, **_ious(counts.pop("clean"), flags)}
        if flags.bursts:
            row |= _disturbed(counts)
        rows.append(row)
    return rows


def _as_seen(source: FrameSource, height: int) -> FrameSource:
    """`source` at the network's size: `height` rows, the aspect kept."""
    rows, columns = source.image(0, 0).shape[:2]
    width = max(32, round(height * columns / rows / 32) * 32)
    return resize_frames(source, (height, width))


def _values(label: np.ndarray, flags: Flags) -> np.ndarray:
    """0 background, 1 shaft, 2 manipulator, 3 instrument, `IGNORE` not scored."""
    truth = np.zeros(label.shape, np.uint8)
    truth[np.isin(label, flags.shaft)] = 1
    truth[np.isin(label, flags.manipulator)] = 2
    truth[np.isin(label, flags.instrument)] = 3
    truth[label == IGNORE] = IGNORE
    return truth


def _counted(label: np.ndarray, truth: np.ndarray, shaft: int) -> np.ndarray:
    """Pixels |P and G|, |P|, |G| of instrument, shaft and manipulator: int64 [3, 3]."""
    scored = truth != IGNORE
    predicted = [label > 0, label == shaft, (label > 0) & (label != shaft)]
    actual = [(truth > 0) & scored, truth == 1, truth == 2]
    return np.array(
        [
            [(p & a).sum(), (p & scored).sum(), a.sum()]
            for p, a in zip(predicted, actual, strict=True)
        ]
    )


def _ious(counts: np.ndarray, flags: Flags) -> dict[str, float]:
    overlap, predicted, actual = counts.T
    with np.errstate(invalid="ignore"):
        iou = overlap / (predicted + actual - overlap)
    found = {"instrument": float(iou[0])}
    if flags.shaft and flags.manipulator:
        found |= {"shaft": float(iou[1]), "manipulator": float(iou[2])}
    return found


def _disturbed(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """IoU of instruments on disturbed frames: of all, and of the kinds not trained."""
    found = {}
    for name, kinds in (("disturbed", KINDS), ("unseen kinds", UNSEEN)):
        hit = [counts[kind][0] for kind in kinds if kind in counts]
        overlap, predicted, actual = np.sum([np.zeros(3), *hit], axis=0)
        found[name] = float(overlap / max(1, predicted + actual - overlap))
    return found


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "video"]
    return {"video": "mean", **{n: np.nanmean([r[n] for r in rows]) for n in names}}
