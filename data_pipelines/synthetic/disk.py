"""Writes rendered data sets to disk: atomic, resumable, one run per directory."""

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

from data_pipelines.io.files import write_text
from data_pipelines.synthetic.render import Frame, Scene, check_scene, render_frame

MARKER = "synthetic.json"
"""Name of the file with a run's parameters and whether it is finished."""

Log = Callable[[str], None]


def parameters(
    layout: str,
    seed: int,
    sequences: tuple[int, ...],
    frames: int,
    size: tuple[int, int],
    rate: float,
) -> dict[str, Any]:
    """Returns the parameters that identify a run."""
    return {
        "layout": layout,
        "seed": seed,
        "sequences": list(sequences),
        "frames": frames,
        "size": list(size),
        "rate": rate,
    }


def check_run(run: dict[str, Any], known: tuple[int, ...], threads: int) -> None:
    """Raises ValueError if the parameters are invalid for this layout."""
    sequences, frames = run["sequences"], run["frames"]
    for number in sequences:
        if number not in known:
            names = ", ".join(map(str, known))
            raise ValueError(f"sequence {number}: this layout has only {names}")
    if not sequences or len(set(sequences)) < len(sequences):
        raise ValueError(f"sequences {sequences}: pass one or more, each only once")
    if not 1 <= frames <= 1000:
        raise ValueError(f"frames {frames}: use 1 to 1000 (names have three digits)")
    check_scene(run["seed"], 0, tuple(run["size"]), run["rate"])
    if threads < 1:
        raise ValueError(f"threads {threads}: use at least 1")


def is_finished(root: Path, run: dict[str, Any]) -> bool:
    """Returns whether this run is already complete on disk; marks a new one as started.

    Raises:
        ValueError: the directory contains another run or other files.
    """
    marker = root / MARKER
    if not root.exists() or not any(root.iterdir()):
        root.mkdir(parents=True, exist_ok=True)
        write_json(marker, {**run, "finished": False})
        return False
    try:
        stored = json.loads(marker.read_text())
        finished = bool(stored.pop("finished"))
    except FileNotFoundError:
        raise ValueError(
            f"{root}: not empty and has no {MARKER}; choose an empty directory"
        ) from None
    except (ValueError, KeyError, AttributeError):
        raise ValueError(
            f"{marker}: cannot be read; remove {root} and start again"
        ) from None
    for field, value in run.items():
        if stored.get(field) != value:
            raise ValueError(
                f"{marker}: written with {field} {stored.get(field)}, not {value}; "
                "choose another directory or remove this one"
            )
    return finished


def finish(root: Path, run: dict[str, Any]) -> None:
    """Marks a run as complete."""
    write_json(root / MARKER, {**run, "finished": True})


def write_frames(
    scene: Scene,
    frames: int,
    images: Path,
    save: Callable[[Frame, str], None],
    threads: int,
) -> None:
    """Renders and saves the frames whose image is missing.

    Args:
        scene: the scene.
        frames: number of frames.
        images: folder of the images, which `save` writes after the masks.
        save: writes the files of a frame, given the file name.
        threads: number of frames rendered in parallel.
    """

    def write(number: int) -> None:
        name = f"frame{number:03d}.png"
        if not (images / name).exists():
            save(render_frame(scene, number), name)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(write, range(frames)):
            pass


def calibration(size: tuple[int, int]) -> str:
    """Returns pinhole intrinsics (pixels) of the simulated endoscope, undistorted."""
    height, width = size
    return (
        f"Width: {width}\nHeight: {height}\n"
        f"Camera-0-F: {1.05 * height:.3f} {1.05 * height:.3f}\n"
        f"Camera-0-C: {width / 2:.3f} {height / 2:.3f}\n"
        "Camera-0-K: 0 0 0 0 0\n"
    )


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes a PNG atomically; without fsync, because there are thousands of them."""
    temporary = path.with_suffix(".part")
    Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
    os.replace(temporary, path)


def write_json(path: Path, value: object) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")
