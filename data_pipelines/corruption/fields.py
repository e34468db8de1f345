"""Soft fields that drift: the shapes of smoke, drops and shadows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines.synthetic.fields import Field, resize, screen

# Soft fields are computed at this many rows at most, then enlarged.
ROWS = 128
_LATTICE = 48


def field_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size, (height, width), at which fields of frames of `size` are computed."""
    scale = min(1.0, ROWS / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def clouds(
    rng: np.random.Generator,
    size: tuple[int, int],
    *,
    cells: float,
    octaves: int,
    gain: float = 0.55,
    drift: Sequence[tuple[float, float]] = ((0.0, 0.0),),
) -> Field:
    """Noise of several octaves that repeats only after `48 / cells` frame heights.

    Args:
        rng: lattices are drawn from it, as many at every size.
        size: (height, width) of the result.
        cells: lattice cells per frame height of the coarsest octave.
        octaves: how many, each with twice the cells; those finer than a pixel add
            nothing.
        gain: amplitude of an octave relative to the one before.
        drift: (y, x) that each octave has moved by, in frame heights; the last one is
            that of all further octaves.

    Returns:
        float32 [height, width], mean about 0, deviation about 1.
    """
    total, power, amplitude = np.zeros(size, np.float32), 0.0, 1.0
    for octave in range(octaves):
        lattice = rng.standard_normal((_LATTICE, _LATTICE), dtype=np.float32)
        if octave == 0 or 2 * cells <= size[0]:
            moved = drift[min(octave, len(drift) - 1)]
            total += np.float32(amplitude) * _window(lattice, size, cells, moved)
            power += amplitude**2
        cells, amplitude = 2 * cells, amplitude * gain
    return total / np.float32(0.75 * math.sqrt(power))


def _window(
    lattice: Field, size: tuple[int, int], cells: float, moved: tuple[float, float]
) -> Field:
    """The part of a lattice without edges that a frame shows."""
    height, width = size
    rows, columns = cells, cells * width / height
    top, left = -moved[0] * cells, -moved[1] * cells
    first = math.floor(top) - 2, math.floor(left) - 2
    part = lattice
    for axis, (start, count) in enumerate(zip(first, (rows, columns), strict=True)):
        index = np.arange(start, start + math.ceil(count) + 6)
        part = part.take(index, axis, mode="wrap")
    y, x = top - first[0], left - first[1]
    return resize(part, height, width, (x, y, x + columns, y + rows))


def warp(field: Field, y: Field, x: Field) -> Field:
    """`field` [H, W] read `y` and `x` [H, W] frame heights off, the edge repeated."""
    height, width = field.shape
    rows, columns = np.indices((height, width), dtype=np.float32)
    rows = np.clip(rows + y * height, 0, height - 1).astype(np.intp)
    columns = np.clip(columns + x * height, 0, width - 1).astype(np.intp)
    return field[rows, columns]


def soft_threshold(
    field: Field, share: float, softness: float, level_of: Field
) -> Field:
    """A soft mask of where `field` is greatest: 0..1, smooth over `softness`.

    Args:
        field: float [H, W].
        share: of `level_of` that the mask covers, 0..1; a larger share covers all that
            a smaller one does.
        softness: of the edge, in units of the field.
        level_of: the field whose quantile the level is; one that does not change with
            time keeps the level still.
    """
    level = np.float32(np.quantile(level_of, 1 - share))
    t = np.clip((field - level) / np.float32(softness) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def distance(size: tuple[int, int], y: float, x: float) -> Field:
    """Distance of each pixel from a point, in frame heights from the center."""
    columns, rows = screen(size)
    return np.hypot(columns - np.float32(x), rows - np.float32(y))


def blend(
    frame: NDArray[np.uint8] | Field, over: Field | NDArray, cover: Field
) -> NDArray[np.uint8]:
    """`frame` with `over` in front where `cover` [h, w], at any size, is 1."""
    height, width = frame.shape[:2]
    share = np.clip(resize(cover, height, width), 0, 1)[..., None]
    base = frame.astype(np.float32)
    return to_uint8(base + share * (over - base))


def to_uint8(picture: Field) -> NDArray[np.uint8]:
    """Levels in 0..255, rounded."""
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
