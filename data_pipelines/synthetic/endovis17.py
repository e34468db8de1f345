"""Synthetic video in the raw layout of EndoVis17: instrument types and parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipelines.io.files import write_text
from data_pipelines.synthetic.disk import (
    Log,
    calibration,
    check_run,
    finish,
    is_finished,
    parameters,
    write_frames,
    write_json,
    write_png,
)
from data_pipelines.synthetic.instruments import Tool
from data_pipelines.synthetic.render import Frame, make_scene
from data_pipelines.synthetic.sprites import TYPES

ENDOVIS17_FOLDERS: dict[int, tuple[str, ...]] = {
    1: (
        "Left_Prograsp_Forceps_labels",
        "Right_Prograsp_Forceps_labels",
        "Maryland_Bipolar_Forceps_labels",
        "Other_labels",
    ),
    2: (
        "Left_Prograsp_Forceps_labels",
        "Right_Prograsp_Forceps_labels",
        "Other_labels",
    ),
    3: ("Left_Large_Needle_Driver_labels", "Right_Large_Needle_Driver_labels"),
    4: (
        "Large_Needle_Driver_Left_labels",
        "Large_Needle_Driver_Right_labels",
        "Prograsp_Forceps_labels",
    ),
    5: ("Bipolar_Forceps_labels", "Grasping_Retractor_labels", "Vessel_Sealer_labels"),
    6: (
        "Left_Large_Needle_Driver_labels",
        "Right_Large_Needle_Driver_labels",
        "Monopolar_Curved_Scissors_labels",
        "Prograsp_Forceps",
    ),
    7: ("Left_Bipolar_Forceps", "Right_Vessel_Sealer"),
    8: (
        "Bipolar_Forceps_labels",
        "Left_Grasping_Retractor_labels",
        "Right_Grasping_Retractor_labels",
        "Monopolar_Curved_Scissors_labels",
    ),
}
"""Mask folders of each sequence, with the irregular names of the original."""

_PART_VALUES = {"background": 0, "shaft": 10, "wrist": 20, "claspers": 30, "probe": 40}


def tools_of_endovis17(sequence: int) -> tuple[Tool, ...]:
    """Returns the instruments of a sequence, in the order of `ENDOVIS17_FOLDERS`."""
    folders = ENDOVIS17_FOLDERS[sequence]
    sides = [
        next((side for side in ("left", "right") if side.title() in folder), None)
        for folder in folders
    ]
    unused = (side for side in ("right", "left", "bottom", "top") if side not in sides)
    kinds = [
        next(k for k, name in enumerate(TYPES, 1) if name.replace(" ", "_") in folder)
        for folder in folders
    ]
    pairs = zip(kinds, sides, strict=True)
    return tuple(Tool(kind, side or next(unused)) for kind, side in pairs)


def write_endovis17(
    out: str | Path,
    *,
    seed: int,
    sequences: int | Sequence[int] = 8,
    frames: int = 225,
    size: tuple[int, int] = (1024, 1280),
    rate: float = 2.0,
    threads: int = 2,
    log: Log | None = None,
) -> None:
    """Writes `out/instrument_dataset_k/...` in the layout of EndoVis17.

    Frames have a dark border: at 1024x1280 they are at row 28, column 320 of a
    1080x1920 canvas; other sizes have the same proportions. Masks have the canvas size
    and the values 0, 10 (shaft), 20 (wrist), 30 (claspers); those of sequence 7 are
    RGB.

    An interrupted run is resumed, and a complete run does nothing. The files do not
    depend on `threads`.

    Args:
        out: an empty or new directory, or one from an earlier run.
        seed: seed of the data set.
        sequences: sequence numbers in 1..8, or the number of sequences from 1 on.
        frames: number of frames per sequence, 1 to 1000.
        size: (height, width) in pixels of the image inside the border, with aspect 4:5.
        rate: frames per second.
        threads: number of frames rendered in parallel.
        log: called with one line per finished sequence.

    Raises:
        ValueError: a parameter is out of range, or `out` contains other files.
    """
    if isinstance(sequences, int):
        sequences = range(1, sequences + 1)
    numbers, root = tuple(sequences), Path(out)
    run = parameters("endovis17", seed, numbers, frames, size, rate)
    check_run(run, tuple(ENDOVIS17_FOLDERS), threads)
    height, width = size
    if abs(5 * height - 4 * width) > 4:  # the reader requires it to find the border
        raise ValueError(
            f"size {height}x{width}: EndoVis17 needs height:width of 4:5, such as "
            "256x320"
        )
    if is_finished(root, run):
        return
    canvas = round(1080 / 1024 * height), round(1920 / 1280 * width)
    corner = round(28 / 1024 * height), round(320 / 1280 * width)
    write_json(root / "mappings.json", _PART_VALUES)
    types = {name: number for number, name in enumerate(TYPES, 1)}
    write_json(root / "instrument_type_mapping.json", types)
    for k in numbers:
        scene = make_scene(seed, k, tools_of_endovis17(k), size, rate)
        folder = root / f"instrument_dataset_{k}"
        masks = [folder / "ground_truth" / name for name in ENDOVIS17_FOLDERS[k]]
        for path in (folder / "left_frames", *masks):
            path.mkdir(parents=True, exist_ok=True)
        write_text(folder / "camera_calibration.txt", calibration(size))
        save = partial(
            _save,
            images=folder / "left_frames",
            masks=masks,
            canvas=canvas,
            corner=corner,
            rgb=k == 7,
        )
        write_frames(scene, frames, folder / "left_frames", save, threads)
        if log:
            log(f"{folder.name}: {frames} frames, {len(masks)} instruments")
    finish(root, run)


def _save(
    frame: Frame,
    name: str,
    *,
    images: Path,
    masks: list[Path],
    canvas: tuple[int, int],
    corner: tuple[int, int],
    rgb: bool,
) -> None:
    """Writes the masks of a frame, then its image, all with a border."""
    for path, part in zip(masks, frame.parts, strict=True):
        mask = _place(part, canvas, corner)
        write_png(path / name, np.repeat(mask[..., None], 3, -1) if rgb else mask)
    write_png(images / name, _place(frame.rgb, canvas, corner, fill=3))


def _place(
    inner: NDArray[np.uint8],
    canvas: tuple[int, int],
    corner: tuple[int, int],
    fill: int = 0,
) -> NDArray[np.uint8]:
    """Adds a border: places an image on a canvas (H, W) at `corner` (row, column)."""
    out = np.full((*canvas, *inner.shape[2:]), fill, np.uint8)
    (row, column), (height, width) = corner, inner.shape[:2]
    out[row : row + height, column : column + width] = inner
    return out
