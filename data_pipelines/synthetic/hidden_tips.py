"""Rendered video in which only the past tells an instrument's type.

All instruments look the same except for their tips: the shape of the claspers, and the
paint of all parts beyond the shaft. They dip into the tissue again and again. A network
that sees one frame cannot know the type of an instrument whose tip is hidden; one that
remembers can. Every video has random instruments, sides, tissue and camera, so the type
cannot be guessed from anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.synthetic.disk import (
    Log,
    check_run,
    finish,
    is_finished,
    parameters,
    write_json,
    write_png,
)
from data_pipelines.synthetic.fields import generator, make_episodes
from data_pipelines.synthetic.instruments import SHAFT, Instrument, Tool
from data_pipelines.synthetic.motion import SIDES
from data_pipelines.synthetic.render import Frame, Scene, make_scene, render_frame
from data_pipelines.synthetic.sprites import TYPES, Sprite

KINDS = (3, 4, 5, 7)
"""Types that are used, with clearly different claspers; class k is `KINDS[k - 1]`."""

PAINTS = ((0.15, 0.35, 0.95), (0.15, 0.7, 0.25), (0.95, 0.8, 0.1), (0.65, 0.25, 0.8))
"""RGB of the tips by class. Types are easy to tell, so that scores show memory."""

EVIDENCE = "evidence"
"""Name of the folders with what can be known of each pixel; see `evidence`."""

NOT_SCORED, VISIBLE = 0, 1

# Tips count as visible from this share of their usual area, as hidden up to that.
_SEEN, _HIDDEN = 0.5, 0.05
_COLORS = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167))


def make_hidden_tips_scene(
    seed: int, number: int, size: tuple[int, int] = (128, 160), rate: float = 8.0
) -> Scene:
    """Returns scene `number`: one or two instruments of random types and sides.

    Args:
        seed: seed of the data set, 0 <= seed < 2**64.
        number: number of the video.
        size: (height, width) of the frames in pixels, at least 32 each.
        rate: frames per second of scene time.

    Raises:
        ValueError: a parameter is out of range.
    """
    rng = generator(seed, number, 70)
    count = int(rng.integers(1, 3))
    kinds = rng.choice(KINDS, count)
    sides = rng.permutation(SIDES)[:count]
    tools = tuple(Tool(int(k), str(s)) for k, s in zip(kinds, sides, strict=True))
    scene = make_scene(seed, number, tools, size, rate)
    instruments = tuple(hide_tip(tool, rng) for tool in scene.instruments)
    return replace(scene, instruments=instruments)


def hide_tip(instrument: Instrument, rng: np.random.Generator) -> Instrument:
    """Returns the instrument with a painted tip, which the tissue hides for seconds."""
    arm = replace(
        instrument.arm,
        clearance=float(rng.uniform(0.06, 0.08)),
        away=make_episodes(rng, 1e6, 0.0, 1.0),
        buried=make_episodes(rng, rng.uniform(4.0, 6.0), 0.4, 0.5),
    )
    paint = PAINTS[KINDS.index(instrument.tool.kind)]
    shaft, *tip = instrument.parts
    painted = (_painted(part, paint) for part in tip)
    return replace(instrument, arm=arm, parts=(shaft, *painted))


def _painted(part: Sprite, paint: tuple[float, float, float]) -> Sprite:
    """Returns the part with a dull coat of paint, through which its shape shows."""
    color, relief = np.array(part.color), np.array(part.relief)
    tone = color[..., :3].mean(-1, keepdims=True) / 255
    color[..., :3] = 255 * (0.4 + 0.6 * tone) * np.array(paint)
    relief[..., 2] //= 4
    return replace(part, color=Image.fromarray(color), relief=Image.fromarray(relief))


def evidence(areas: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns what is known of each instrument in each frame from its tip.

    Args:
        areas: int [frames, instruments], visible pixels of the tip.

    Returns:
        uint8 [frames, instruments]: `VISIBLE` where the tip is visible; 1 + n where it
        is hidden and was last visible n frames before, at most 254; `NOT_SCORED` where
        it is half hidden or was never visible.
    """
    usual = np.percentile(areas, 90, axis=0)
    seen = (areas >= _SEEN * usual) & (areas > 0)
    hidden = areas <= _HIDDEN * usual
    result = np.full(areas.shape, NOT_SCORED, np.uint8)
    last = np.full(areas.shape[1], -1)
    for frame in range(len(areas)):
        last[seen[frame]] = frame
        result[frame, seen[frame]] = VISIBLE
        known = hidden[frame] & (last >= 0)
        result[frame, known] = VISIBLE + np.minimum(frame - last[known], 254)
    return result


def labels(scene: Scene, frame: Frame) -> NDArray[np.uint8]:
    """Returns the class of each pixel, uint8 [H, W]."""
    label = np.zeros(frame.rgb.shape[:2], np.uint8)
    for instrument, part in zip(scene.instruments, frame.parts, strict=True):
        label[part > 0] = 1 + KINDS.index(instrument.tool.kind)
    return label


def write_hidden_tips(
    out: str | Path,
    *,
    seed: int,
    sequences: int | Sequence[int] = 140,
    frames: int = 48,
    size: tuple[int, int] = (128, 160),
    rate: float = 8.0,
    threads: int = 2,
    log: Log | None = None,
) -> None:
    """Writes `out/videoNNN/{frames,masks,evidence}` and `out/classes.json`.

    Frames and masks are in the folder layout that `data.dataset folder` reads. The
    images of `evidence` have the values of `evidence` in the pixels of instruments, and
    `NOT_SCORED` elsewhere. An interrupted run is resumed, and a complete run does
    nothing.

    Args:
        out: an empty or new directory, or one from an earlier run.
        seed: seed of the data set.
        sequences: numbers of the videos, 0 to 999, or the number of videos from 0 on.
        frames: number of frames per video, 1 to 1000.
        size: (height, width) of the frames in pixels.
        rate: frames per second.
        threads: number of frames rendered in parallel.
        log: called with one line per finished video.

    Raises:
        ValueError: a parameter is out of range, or `out` contains other files.
    """
    if isinstance(sequences, int):
        sequences = range(sequences)
    numbers, root = tuple(sequences), Path(out)
    run = parameters("hidden_tips", seed, numbers, frames, size, rate)
    # A set with other paints is not resumed or taken for complete.
    run["paints"] = [list(paint) for paint in PAINTS]
    if not all(0 <= number < 1000 for number in numbers):
        raise ValueError(f"sequences {numbers}: use numbers from 0 to 999")
    check_run(run, numbers, threads)
    if is_finished(root, run):
        return
    names = ["background", *(TYPES[kind - 1] for kind in KINDS)]
    classes = [
        {"name": name, "color": list(color)}
        for name, color in zip(names, _COLORS, strict=True)
    ]
    write_json(root / "classes.json", classes)
    for number in numbers:
        folder = root / f"video{number:03d}"
        if not _is_complete(folder, frames):
            scene = make_hidden_tips_scene(seed, number, size, rate)
            _write_video(scene, folder, frames, threads)
        if log:
            log(f"{folder.name}: {frames} frames")
    finish(root, run)


def _is_complete(folder: Path, frames: int) -> bool:
    """Returns whether a video was written; images are written last."""
    return (folder / "frames" / _name(frames - 1)).is_file()


def _write_video(scene: Scene, folder: Path, frames: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        rendered = list(pool.map(lambda k: render_frame(scene, k), range(frames)))
    areas = np.array([(frame.parts > SHAFT).sum((1, 2)) for frame in rendered])
    known = evidence(areas)
    for name in ("frames", "masks", EVIDENCE):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(rendered):
        instruments = (frame.parts > 0) * known[number][:, None, None]
        write_png(folder / EVIDENCE / _name(number), instruments.max(0))
        write_png(folder / "masks" / _name(number), labels(scene, frame))
    for number, frame in enumerate(rendered):
        write_png(folder / "frames" / _name(number), frame.rgb)


def _name(number: int) -> str:
    return f"frame{number:03d}.png"
