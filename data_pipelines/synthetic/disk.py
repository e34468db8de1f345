"""Runs that write files: atomic, resumable, and never mixed with one another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.synthetic.render import Frame, Scene, check_scene, render_frame

MARKER = "synthetic.json"
"""Holds a run's parameters, and whether it is finished."""

Log = Callable[[str], None]


def parameters(
    layout: str,
    seed: int,
    sequences: tuple[int, ...],
    frames: int,
    size: tuple[int, int],
    rate: float,
) -> dict[str, Any]:
    """What a run is recognized by."""
    return {
        "layout": layout,
        "seed": seed,
        "sequences": list(sequences),
        "frames": frames,
        "size": list(size),
        "rate": rate,
    }


def check_run(run: dict[str, Any], known: tuple[int, ...], threads: int) -> None:
    """Raises ValueError for a run that this layout cannot hold."""
    chosen, frames = run["sequences"], run["frames"]
    for number in chosen:
        if number not in known:
            names = ", ".join(map(str, known))
            raise ValueError(f"sequence {number}: this layout has only {names}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"sequences {chosen}: name each at least and only once")
    if not 1 <= frames <= 1000:
        raise ValueError(f"frames {frames}: use 1 to 1000 (names have three digits)")
    check_scene(run["seed"], 0, tuple(run["size"]), run["rate"])
    if threads < 1:
        raise ValueError(f"threads {threads}: use at least 1")


def is_finished(root: Path, run: dict[str, Any]) -> bool:
    """Whether this very run is already on disk; marks a new one as begun."""
    marker = root / MARKER
    if not root.exists() or not any(root.iterdir()):
        root.mkdir(parents=True, exist_ok=True)
        write_json(marker, {**run, "finished": False})
        return False
    try:
        found = json.loads(marker.read_text())
        finished = bool(found.pop("finished"))
    except FileNotFoundError:
        raise ValueError(
            f"{root}: not empty and without {MARKER}; choose an empty directory"
        ) from None
    except (ValueError, KeyError, AttributeError):
        raise ValueError(
            f"{marker}: not readable; remove {root} and start again"
        ) from None
    for field, wanted in run.items():
        if found.get(field) != wanted:
            raise ValueError(
                f"{marker}: made with {field} {found.get(field)}, not {wanted}; "
                "choose another directory or remove this one"
            )
    return finished


def finish(root: Path, run: dict[str, Any]) -> None:
    """Marks a run as complete."""
    write_json(root / MARKER, {**run, "finished": True})


def write_frames(
    scene: Scene,
    frames: int,
    pictures: Path,
    save: Callable[[Frame, str], None],
    threads: int,
) -> None:
    """Renders and saves the frames whose picture, the last file of each, is missing."""

    def one(number: int) -> None:
        name = f"frame{number:03d}.png"
        if not (pictures / name).exists():
            save(render_frame(scene, number), name)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(one, range(frames)):
            pass


def calibration(size: tuple[int, int]) -> str:
    """Pinhole intrinsics (pixels) of the imagined endoscope, without distortion."""
    height, width = size
    return (
        f"Width: {width}\nHeight: {height}\n"
        f"Camera-0-F: {1.05 * height:.3f} {1.05 * height:.3f}\n"
        f"Camera-0-C: {width / 2:.3f} {height / 2:.3f}\n"
        "Camera-0-K: 0 0 0 0 0\n"
    )


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes a PNG that is either absent or whole."""
    part = path.with_suffix(".part")
    Image.fromarray(pixels).save(part, format="PNG", compress_level=1)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that is either absent or whole."""
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(part, path)


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")
