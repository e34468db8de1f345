"""Synthetic video in the raw layout of EndoVis18: parts, anatomy and devices."""

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
from data_pipelines.synthetic.instruments import JAWS, SHAFT, WRIST, Tool
from data_pipelines.synthetic.render import Frame, make_scene
from data_pipelines.synthetic.tissue import REGIONS

ENDOVIS18_SEQUENCES = (*range(1, 8), *range(9, 17))
"""Sequence numbers; there is no sequence 8."""

ENDOVIS18_LABELS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("background-tissue", (0, 0, 0)),
    ("instrument-shaft", (0, 255, 0)),
    ("instrument-clasper", (0, 255, 255)),
    ("instrument-wrist", (125, 255, 12)),
    ("kidney-parenchyma", (255, 55, 0)),
    ("covered-kidney", (24, 55, 125)),
    ("thread", (187, 155, 25)),
    ("clamps", (0, 255, 125)),
    ("suturing-needle", (255, 255, 125)),
    ("suction-instrument", (123, 15, 175)),
    ("small-intestine", (124, 155, 5)),
    ("ultrasound-probe", (12, 255, 141)),
)
"""Name and color by class id. Clamps and suction are listed but never drawn."""

_PROBE = 7


def write_endovis18(
    out: str | Path,
    *,
    seed: int,
    sequences: Sequence[int] = ENDOVIS18_SEQUENCES,
    frames: int = 149,
    size: tuple[int, int] = (1024, 1280),
    rate: float = 1.0,
    threads: int = 2,
    log: Log | None = None,
) -> None:
    """Writes `out/seq_k/{left_frames,labels}/frameNNN.png` and `labels.json`.

    As in EndoVis18, there is no border and no sequence 8, and labels have the colors of
    `ENDOVIS18_LABELS`, as RGB in odd sequences and RGBA in even ones. See
    `write_endovis17` for arguments, resuming and errors; `sequences` are numbers in
    1..16, except 8.
    """
    numbers, root = tuple(sequences), Path(out)
    run = parameters("endovis18", seed, numbers, frames, size, rate)
    check_run(run, ENDOVIS18_SEQUENCES, threads)
    if is_finished(root, run):
        return
    entries = [
        {"name": name, "color": list(color), "classid": index}
        for index, (name, color) in enumerate(ENDOVIS18_LABELS)
    ]
    write_json(root / "labels.json", entries)
    for k in numbers:
        tools = tools_of_endovis18(k)
        scene = make_scene(seed, 100 + k, tools, size, rate, anatomy=True)
        folder = root / f"seq_{k}"
        for name in ("left_frames", "labels"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_text(folder / "camera_calibration.txt", calibration(size))
        save = partial(_save, folder=folder, tools=tools, alpha=k % 2 == 0)
        write_frames(scene, frames, folder / "left_frames", save, threads)
        if log:
            log(f"{folder.name}: {frames} frames, {len(tools)} instruments")
    finish(root, run)


def endovis18_ids(frame: Frame, tools: tuple[Tool, ...]) -> NDArray[np.uint8]:
    """Returns class ids uint8 [H, W], indices into `ENDOVIS18_LABELS`."""
    names = [name for name, _ in ENDOVIS18_LABELS]
    ids = np.array([names.index(name) for name in REGIONS], np.uint8)[frame.regions]
    for part, tool in zip(frame.parts, tools, strict=True):
        tip = "ultrasound-probe" if tool.kind == _PROBE else "instrument-clasper"
        ids[part == SHAFT] = names.index("instrument-shaft")
        ids[part == WRIST] = names.index("instrument-wrist")
        ids[part == JAWS] = names.index(tip)
    return ids


def tools_of_endovis18(sequence: int) -> tuple[Tool, ...]:
    """Returns two or three tools; every third sequence has an ultrasound probe."""
    kinds = ((1, 6), (3, 3), (2, 6, _PROBE))[sequence % 3]
    sides = ("left", "right", "bottom")
    return tuple(Tool(k, side) for k, side in zip(kinds, sides, strict=False))


def _save(
    frame: Frame, name: str, *, folder: Path, tools: tuple[Tool, ...], alpha: bool
) -> None:
    colors = np.array([color for _, color in ENDOVIS18_LABELS], np.uint8)
    label = colors[endovis18_ids(frame, tools)]
    if alpha:
        opaque = np.full((*label.shape[:2], 1), 255, np.uint8)
        label = np.concatenate([label, opaque], -1)
    write_png(folder / "labels" / name, label)
    write_png(folder / "left_frames" / name, frame.rgb)
