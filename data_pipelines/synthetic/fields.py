"""Random fields in space and random tracks in time, each a pure function of its key.

Lengths are in frame heights and times in seconds, so that a key gives the same scene at
every image size and frame rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.floating]

# Number of random values after which tracks and episodes repeat.
_KNOTS = 512
# Minimum number of samples per cell of noise; bicubic interpolation does the rest.
_SAMPLES = 4


def generator(seed: int, *path: int) -> np.random.Generator:
    """Returns an independent random generator for every (seed, path).

    A path without trailing zeros is equivalent to the same path with them.

    Args:
        seed: the seed, 0 <= seed < 2**64.
        *path: one to four non-negative integers, such as (sequence, purpose, index).
    """
    first, *rest = path
    counter = np.array([0, *rest] + [0] * (3 - len(rest)), np.uint64)
    key = np.array([seed, first], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def resize(
    lattice: NDArray[np.floating] | Image.Image,
    height: int,
    width: int,
    box: tuple[float, float, float, float] | None = None,
) -> Field:
    """Interpolates a 2-D lattice (or `box` in it) bicubically to [height, width]."""
    image = lattice
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(lattice, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def smooth(field: Field, radius: float) -> Field:
    """Approximates a wide blur: averages over about `radius` pixels, interpolates."""
    height, width = field.shape
    step = max(1.0, radius)
    small = (max(2, round(width / step)), max(2, round(height / step)))
    coarse = Image.fromarray(field.astype(np.float32, copy=False))
    return resize(coarse.resize(small, Image.Resampling.BILINEAR), height, width)


def fractal(
    rng: np.random.Generator,
    extent: tuple[float, float],
    density: float,
    cell: float,
    octaves: int,
    gain: float = 0.5,
    stretch: float = 1.0,
) -> Field:
    """Generates multi-octave noise of mean 0 and about unit standard deviation.

    Octaves finer than two pixels are omitted. Coarse octaves are the same at every
    density.

    Args:
        rng: one number is drawn from it, to seed a separate generator.
        extent: (height, width) covered, in frame heights.
        density: pixels per frame height.
        cell: lattice spacing of the coarsest octave, in frame heights.
        octaves: number of octaves, each half as coarse as the one before.
        gain: amplitude of an octave relative to the one before.
        stretch: length of a cell along x relative to y.

    Returns:
        float32 [round(extent[0] * density), round(extent[1] * density)].
    """
    height, width = (round(side * density) for side in extent)
    # The sum of the octaves so far has one value per block of `step` x `step` pixels:
    # an octave is smooth within its cells, so it needs no finer grid.
    step = _grid_step(cell * density)
    total = np.zeros((-(-height // step), -(-width // step)), np.float32)
    power, amplitude = 0.0, 1.0
    # A separate generator, so that omitted octaves do not affect later draws of `rng`.
    rng = np.random.Generator(np.random.SFC64(int(rng.integers(1 << 63))))
    for octave in range(octaves):
        if cell * density < 2 and power > 0:
            break
        finer = _grid_step(cell * density)
        total, step = _refined(total, step, finer, (height, width)), finer
        rows, cols = extent[0] / cell, extent[1] / (cell * stretch)
        side = math.ceil(math.hypot(rows, cols)) + 4
        small = total.shape[1], total.shape[0]
        if stretch == 1.0:
            # Every octave is rotated, because aligned grids would be visible.
            lattice = rng.standard_normal((side, side), dtype=np.float32)
            turn, pitch = 0.4 + 0.9 * octave, step / (cell * density)
            a, b = pitch * math.cos(turn), pitch * math.sin(turn)
            left = side / 2 - (a * width + b * height) / (2 * step)
            top = side / 2 + (b * width - a * height) / (2 * step)
            layer = Image.fromarray(lattice).transform(
                small,
                Image.Transform.AFFINE,
                (a, b, left, -b, a, top),
                resample=Image.Resampling.BICUBIC,
            )
        else:
            shape = (math.ceil(rows) + 3, math.ceil(cols) + 3)
            lattice = rng.standard_normal(shape, dtype=np.float32)
            right, below = (
                cols * small[0] * step / width,
                rows * small[1] * step / height,
            )
            box = (1.0, 1.0, 1.0 + right, 1.0 + below)
            layer = resize(lattice, small[1], small[0], box)
        total = total + np.float32(amplitude) * np.asarray(layer)
        power += amplitude**2
        cell, amplitude = cell / 2, amplitude * gain
    total = _refined(total, step, 1, (height, width))
    return total / np.float32(0.8 * math.sqrt(power))


def _grid_step(pixels: float) -> int:
    """Returns the spacing of the grid for noise with cells of so many pixels."""
    return 2 ** max(0, math.floor(math.log2(pixels / _SAMPLES)))


def _refined(field: Field, step: int, finer: int, size: tuple[int, int]) -> Field:
    """Interpolates a field of one value per `step` pixels to one per `finer` pixels."""
    height, width = (-(-side // finer) for side in size)
    box = (0.0, 0.0, width * finer / step, height * finer / step)
    return field if step == finer else resize(field, height, width, box)


@dataclass(frozen=True)
class Track:
    """Smooth random values over time, about within -1..1, with a long repeat period.

    Attributes:
        knots: [512, n].
        period: seconds per knot.
    """

    knots: NDArray[np.float64]
    period: float

    def at(self, seconds: float) -> NDArray[np.float64]:
        """Returns the values [n] at a time (uniform cubic B-spline of the knots)."""
        position = seconds / self.period
        index = math.floor(position)
        u = position - index
        weights = (
            (1 - u) ** 3 / 6,
            (3 * u**3 - 6 * u**2 + 4) / 6,
            (-3 * u**3 + 3 * u**2 + 3 * u + 1) / 6,
            u**3 / 6,
        )
        value = np.zeros(self.knots.shape[1])
        for offset, weight in enumerate(weights):
            value += weight * self.knots[(index + offset) % _KNOTS]
        return value


def make_track(rng: np.random.Generator, n: int, period: float) -> Track:
    """Draws a track of `n` values with `period` seconds per knot."""
    return Track(rng.uniform(-1.6, 1.6, (_KNOTS, n)), period)


@dataclass(frozen=True)
class Episodes:
    """An event that occurs once per period.

    Attributes:
        start: [512], start within each period, in 0..1 - share - 2 ramps.
        period: seconds per period.
        share: approximate share of a period that the event lasts.
        phase: offset in periods.
        ramp: seconds of fade-in and fade-out.
    """

    start: NDArray[np.float64]
    period: float
    share: float
    phase: float
    ramp: float

    def at(self, seconds: float) -> float:
        """Returns 0 outside, 1 inside, smooth over `ramp` seconds at both ends."""
        position = seconds / self.period + self.phase
        index = math.floor(position)
        ramp = self.ramp / self.period
        since = position - index - self.start[index % _KNOTS]
        return smoothstep(since / ramp) * smoothstep(
            (self.share + 2 * ramp - since) / ramp
        )


def make_episodes(
    rng: np.random.Generator, period: float, share: float, ramp: float
) -> Episodes:
    """Draws episodes; see `Episodes` for the arguments."""
    latest = 1 - share - 2 * ramp / period
    start = rng.uniform(0.0, latest, _KNOTS)
    return Episodes(start, period, share, float(rng.uniform()), ramp)


def pixel_centers(size: tuple[int, int]) -> tuple[Field, Field]:
    """Returns pixel centers x [1, W] and y [H, 1], in frame heights from the center."""
    height, width = size
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / height
    return x[None, :], y[:, None]


def smoothstep(x: float) -> float:
    """Interpolates smoothly from 0 at x <= 0 to 1 at x >= 1."""
    x = min(1.0, max(0.0, float(x)))
    return x * x * (3 - 2 * x)
