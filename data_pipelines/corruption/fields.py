"""Smooth random fields that drift, from which corruptions are made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines.synthetic.fields import Field, pixel_centers, resize

Frame = NDArray[np.uint8]

# Fields have at most this many rows; they are resized to the frame.
ROWS = 128
# Number of cells after which noise repeats.
_LATTICE = 48


def field_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) of fields for frames of `size` (height, width)."""
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
    """Generates multi-octave noise that repeats after `48 / cells` frame heights.

    Args:
        rng: the generator; the number of draws does not depend on the size.
        size: (height, width) of the result.
        cells: lattice cells per frame height of the coarsest octave.
        octaves: number of octaves, each with twice the cells of the one before; those
            finer than a pixel are omitted.
        gain: amplitude of an octave relative to the one before.
        drift: (y, x) displacement of each octave in frame heights; the last one is
            used for all further octaves.

    Returns:
        float32 [height, width], mean about 0, standard deviation about 1.
    """
    total, power, amplitude = np.zeros(size, np.float32), 0.0, 1.0
    for octave in range(octaves):
        lattice = rng.standard_normal((_LATTICE, _LATTICE), dtype=np.float32)
        if octave == 0 or 2 * cells <= size[0]:
            shift = drift[min(octave, len(drift) - 1)]
            total += np.float32(amplitude) * _window(lattice, size, cells, shift)
            power += amplitude**2
        cells, amplitude = 2 * cells, amplitude * gain
    return total / np.float32(0.75 * math.sqrt(power))


def _window(
    lattice: Field, size: tuple[int, int], cells: float, shift: tuple[float, float]
) -> Field:
    """Interpolates the part of a periodic lattice that a frame shows."""
    height, width = size
    rows, columns = cells, cells * width / height
    top, left = -shift[0] * cells, -shift[1] * cells
    first = math.floor(top) - 2, math.floor(left) - 2
    part = lattice
    for axis, (start, count) in enumerate(zip(first, (rows, columns), strict=True)):
        index = np.arange(start, start + math.ceil(count) + 6)
        part = part.take(index, axis, mode="wrap")
    y, x = top - first[0], left - first[1]
    return resize(part, height, width, (x, y, x + columns, y + rows))


def warp(field: Field, y: Field, x: Field) -> Field:
    """Displaces a field [H, W] by `y` and `x` [H, W] frame heights; edges repeat."""
    height, width = field.shape
    rows, columns = np.indices((height, width), dtype=np.float32)
    rows = np.clip(rows + y * height, 0, height - 1).astype(np.intp)
    columns = np.clip(columns + x * height, 0, width - 1).astype(np.intp)
    return field[rows, columns]


def soft_threshold(
    field: Field, share: float, softness: float, level_of: Field
) -> Field:
    """Returns a soft mask, 0..1, of the largest values of a field.

    Args:
        field: float [H, W].
        share: share of the pixels of `level_of` above the threshold, 0..1.
        softness: width of the transition from 0 to 1, in units of the field.
        level_of: the field whose quantile is the threshold; a field that does not
            change over time makes the threshold constant.
    """
    level = np.float32(np.quantile(level_of, 1 - share))
    t = np.clip((field - level) / np.float32(softness) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def distance(size: tuple[int, int], y: float, x: float) -> Field:
    """Returns distances [H, W] to a point, both in frame heights from the center."""
    columns, rows = pixel_centers(size)
    return np.hypot(columns - np.float32(x), rows - np.float32(y))


def blend(
    frame: NDArray[np.uint8] | Field, over: Field | NDArray, cover: Field
) -> NDArray[np.uint8]:
    """Blends `over` into `frame` by the opacity `cover` [h, w], of any size, 0..1."""
    height, width = frame.shape[:2]
    share = np.clip(resize(cover, height, width), 0, 1)[..., None]
    base = frame.astype(np.float32)
    return to_uint8(base + share * (over - base))


def to_uint8(picture: Field) -> NDArray[np.uint8]:
    """Rounds to uint8, clipped to 0..255."""
    return np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
