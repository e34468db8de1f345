"""Zero-shot scores of a network on labeled videos of another dataset."""

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
    Video,
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

DIR contains VIDEO/frames and VIDEO/MASKS, or is such a VIDEO. All instrument classes
are merged and scored against the background; if the labels distinguish parts, those are
scored as well. Frames keep their aspect ratio. --bursts 2 also scores disturbed frames,
see docs/bursts.md; --no-memory scores the network without its memory. For research use;
not a medical device."""

_CLASSES = (
    ClassInfo("background", (0, 0, 0)),
    ClassInfo("shaft", (230, 159, 0)),
    ClassInfo("manipulator", (0, 158, 115)),
    ClassInfo("instrument", (86, 180, 233)),
)
_SHAFT, _MANIPULATOR, _INSTRUMENT = 1, 2, 3


@dataclass(frozen=True)
class Flags:
    """What to score, and the meaning of mask values.

    Attributes:
        checkpoint: Run directory or .safetensors file of a network that was trained on
            parts, or "rendered" or "rendered-fast" for the shipped networks.
        root: Folder of the labeled videos, or of one.
        masks: Name of the mask folders.
        shaft: Mask values of shafts.
        manipulator: Mask values of wrists and claspers.
        instrument: Mask values of instruments without distinct parts.
        ignore: Mask values that are not scored. For masks with 0 and 255, pass
            `--instrument 255 --ignore`, without a value.
        videos: Names of videos. Default: all.
        height: Height of the network's input, a multiple of 32. The width follows from
            the aspect ratio.
        scales: Further sizes, relative to the input, at which frames are segmented;
            the predictions are averaged.
        bursts: Passes over each video with disturbed frames.
        memory: Use the network's memory.
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        out: Folder for zero_shot.json and overlays. Empty: nothing is written.
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
    scales: tuple[float, ...] = ()
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
    """Computes the IoU of each video, with the pixels of all its frames pooled.

    Raises:
        ValueError: the flags or the folder are invalid, or the network does not
            segment parts.
    """
    # Imported here, so that --help and command-line errors are fast.
    from dmnet_jax import evaluation
    from dmnet_jax.checkpoint.runs import load_run
    from dmnet_jax.evaluation import results

    if not flags.root:
        raise ValueError("--root DIR is missing; see --help")
    if flags.height < 32 or flags.height % 32:
        raise ValueError(f"--height is {flags.height}; it must be a multiple of 32")
    if flags.bursts < 0:
        raise ValueError(f"--bursts is {flags.bursts}; it must be at least 0")
    if not flags.shaft + flags.manipulator + flags.instrument:
        raise ValueError(
            "the mask values of instruments are missing; pass, for example, "
            "--instrument 1"
        )
    instruments = flags.shaft + flags.manipulator + flags.instrument
    if both := sorted(set(instruments) & set(flags.ignore)):
        raise ValueError(
            f"the mask value {both[0]} is both an instrument and ignored; pass "
            "--ignore with the values that are not scored, or with none"
        )
    root, videos = Path(flags.root), flags.videos
    if not videos and (root / "frames").is_dir():
        root, videos = root.resolve().parent, (root.resolve().name,)
    network, variables, _, about = load_run(
        flags.checkpoint, flags.which, memory=flags.memory, scales=flags.scales
    )
    names = [info["name"] for info in about["classes"]]
    if "shaft" not in names:
        raise ValueError(
            f"{flags.checkpoint}: its classes are {', '.join(names)}; the network must "
            "be trained on parts"
        )
    rows = []
    dataset = open_folder(
        root,
        masks=flags.masks,
        videos=videos or None,
        # `_Merged` maps the values, so the reader must return all of them.
        classes=[ClassInfo(f"value {value}", (0, 0, 0)) for value in range(255)],
        allow_missing=True,
    )
    for info in dataset.videos:
        selected = select_videos(dataset, [info.name])
        source = _Merged(_resize(selected, flags.height), flags)
        overlays = None
        if flags.out:
            overlays = results.Overlays(Path(flags.out) / info.name, source)
        counts = {"clean": np.zeros((3, 3), np.int64)}
        passes = plan([len(info.frames)], seed=0, passes=flags.bursts)
        if flags.bursts and not any(passes[0]):
            raise ValueError(
                f"{info.name}: no burst fits into {len(info.frames)} frames; videos "
                "need at least 10, or leave --bursts out"
            )
        for number, schedules in enumerate([[()], *passes]):
            clean_pass = number == 0
            video = Corrupted(source, schedules)
            for result in evaluation.predict_video(network, variables, video, 0):
                burst = video.burst(0, result.frame)
                parts = _predicted_parts(result.label, names.index("shaft"))
                if result.truth is not None and (burst or clean_pass):
                    kind = burst.kind if burst else "clean"
                    frame = _pixel_counts(parts, result.truth)
                    counts[kind] = counts.get(kind, 0) + frame
                if overlays is not None and clean_pass:
                    if not (flags.shaft and flags.manipulator):
                        parts = np.where(parts > 0, np.uint8(_INSTRUMENT), parts)
                    overlays(0, result._replace(label=parts))
        if overlays is not None:
            overlays.finish()
        row = {"video": info.name, **_ious(counts.pop("clean"), flags)}
        if flags.bursts:
            row |= _disturbed_ious(counts)
        rows.append(row)
    return rows


def _resize(source: FrameSource, height: int) -> FrameSource:
    """Resizes to a height, keeping the aspect ratio; width is a multiple of 32."""
    from dmnet_jax.streaming.letterbox import fitted_width

    width = fitted_width(source.image(0, 0).shape[:2], height)
    return resize_frames(source, (height, width))


@dataclass(frozen=True)
class _Merged:
    """A view of `source` whose labels have the classes that are scored (`_CLASSES`)."""

    source: FrameSource
    flags: Flags

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return _CLASSES

    @property
    def videos(self) -> tuple[Video, ...]:
        return self.source.videos

    def image(self, video: int, frame: int) -> np.ndarray:
        return self.source.image(video, frame)

    def label(self, video: int, frame: int) -> np.ndarray | None:
        label = self.source.label(video, frame)
        return None if label is None else _values(label, self.flags)


def _values(label: np.ndarray, flags: Flags) -> np.ndarray:
    """Maps mask values to `_CLASSES` or `IGNORE`."""
    truth = np.zeros(label.shape, np.uint8)
    truth[np.isin(label, flags.shaft)] = _SHAFT
    truth[np.isin(label, flags.manipulator)] = _MANIPULATOR
    truth[np.isin(label, flags.instrument)] = _INSTRUMENT
    truth[np.isin(label, flags.ignore)] = IGNORE
    return truth


def _predicted_parts(label: np.ndarray, shaft: int) -> np.ndarray:
    """Maps predicted classes to shaft and manipulator (all other instrument parts)."""
    parts = np.where(label > 0, np.uint8(_MANIPULATOR), np.uint8(0))
    parts[label == shaft] = _SHAFT
    return parts


def _pixel_counts(parts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Counts |P and G|, |P|, |G| of instrument, shaft, manipulator: int64 [3, 3]."""
    scored = truth != IGNORE
    predicted = [parts > 0, parts == _SHAFT, parts == _MANIPULATOR]
    actual = [(truth > 0) & scored, truth == _SHAFT, truth == _MANIPULATOR]
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
    ious = {"instrument": float(iou[0])}
    if flags.shaft and flags.manipulator:
        ious |= {"shaft": float(iou[1]), "manipulator": float(iou[2])}
    return ious


def _disturbed_ious(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Computes IoUs of instruments on disturbed frames, of all and of unseen kinds."""
    ious = {}
    for name, kinds in (("disturbed", KINDS), ("unseen kinds", UNSEEN)):
        terms = [counts[kind][0] for kind in kinds if kind in counts]
        overlap, predicted, actual = np.sum([np.zeros(3), *terms], axis=0)
        ious[name] = float(overlap / max(1, predicted + actual - overlap))
    return ious


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in rows[0] if name != "video"]
    return {"video": "mean", **{n: np.nanmean([r[n] for r in rows]) for n in names}}
