"""Corruptions by objects in front of the scene: smoke, blood, occluders."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from data_pipelines.corruption.fields import (
    Frame,
    blend,
    clouds,
    distance,
    field_size,
    soft_threshold,
    to_uint8,
    warp,
)
from data_pipelines.synthetic.fields import Field, generator, pixel_centers, resize

# For severities 1 to 5: density of smoke, and the covered share of the frame.
_SMOKE = (0.30, 0.48, 0.65, 0.80, 0.92)
_BLOOD = (0.10, 0.20, 0.33, 0.48, 0.66)
_OCCLUDED = (0.08, 0.16, 0.27, 0.42, 0.60)


def smoke(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Adds turbulent smoke that rises from a point and scatters the lamp's light."""
    size, rng = field_size((frame.shape[0], frame.shape[1])), generator(seed, 0)
    angle, y, x = rng.uniform(0, 6.3), rng.uniform(-0.2, 0.4), rng.uniform(-0.5, 0.5)
    speed = 0.018 * float(rng.uniform(0.7, 1.3))
    drift = -speed * step, 0.5 * speed * step * math.cos(angle)
    fast_drift = 1.6 * drift[0], 1.9 * drift[1]
    offsets = [
        clouds(generator(seed, i), size, cells=2.5, octaves=2, drift=(drift,))
        for i in (1, 2)
    ]
    wisps = clouds(
        generator(seed, 3), size, cells=2, octaves=5, drift=(drift, fast_drift)
    )
    wisps = warp(wisps, 0.07 * offsets[0], 0.07 * offsets[1])
    source = np.exp(-1.2 * distance(size, y, x) ** 2)
    density = _SMOKE[severity - 1]
    depth = np.clip(0.55 + 0.34 * wisps, 0.05, 1.3) * (0.45 + 0.75 * source)
    cover = 1 - np.exp(-2.6 * density**1.6 * depth)
    # The lamp is at the lens, so smoke is brightest in the middle.
    warmth = float(rng.uniform(-8, 8))
    color = float(rng.uniform(180, 220)) + np.array([warmth, 0, -warmth])
    color = color.astype(np.float32)
    light = 1.02 - 0.35 * distance(size, 0, 0) ** 2 + 0.06 * np.clip(wisps, -2, 2)
    over = resize(light.astype(np.float32), *frame.shape[:2])[..., None] * color
    blur = ImageFilter.BoxBlur(0.008 * density * frame.shape[0])
    blurred = np.asarray(Image.fromarray(frame).filter(blur))
    return blend(blurred, over, cover.astype(np.float32))


def blood(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Adds drops and smears on the lens, out of focus, that move slowly."""
    size = field_size((frame.shape[0], frame.shape[1]))
    shift = 0.003 * step
    field = _drops(seed, size, shift)
    # The threshold is that of the first frame, so that drops do not grow.
    first_field = _drops(seed, (32, round(32 * size[1] / size[0])), 0.0)
    share = _BLOOD[severity - 1]
    drop = soft_threshold(field, share, 0.85, first_field)
    core = soft_threshold(field, 0.6 * share, 1.5, first_field)
    rng = generator(seed, 1)
    darkness = np.float32(rng.uniform(0.8, 1.2))
    clots = clouds(rng, size, cells=5, octaves=3, drift=((shift, 0.0),))
    blur = ImageFilter.BoxBlur(0.03 * size[0])
    behind = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX)
    behind = np.asarray(behind.filter(blur).filter(blur), np.float32)
    # A thin film of blood transmits some red, a thick one nothing.
    film = behind * np.array([0.55, 0.12, 0.10], np.float32) + np.array(
        [48, 4, 5], np.float32
    )
    opaque = np.array([64, 5, 8], np.float32) * darkness
    depth = np.clip((0.42 + 0.09 * severity) * core + 0.12 * clots * drop, 0, 1)
    over = Image.fromarray(to_uint8(film + depth[..., None] * (opaque - film)))
    over = over.resize((frame.shape[1], frame.shape[0]))
    return blend(frame, np.asarray(over), drop)


def _drops(seed: int, size: tuple[int, int], shift: float) -> Field:
    """Returns a field [H, W] whose values are largest inside ragged drops."""
    rng = generator(seed, 0)
    half_width = size[1] / size[0] / 2
    columns, rows = pixel_centers(size)
    field = np.zeros(size, np.float32)
    for radius in rng.gamma(2.0, 0.045, 14):
        y, x = rng.uniform(-0.55, 0.55), rng.uniform(-1.1, 1.1) * half_width
        squared = (rows - (y + shift)) ** 2 + (columns - x) ** 2
        field += 1 / (0.35 + squared / np.float32(max(0.025, radius) ** 2))
    field = np.log(field + np.float32(0.02))
    noise = clouds(rng, size, cells=3, octaves=4, drift=((shift, 0.0),))
    return field + np.float32(0.38) * noise


def occluder(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Moves an object close to the lens past: tissue, gauze, steel or a shaft."""
    size, rng = field_size((frame.shape[0], frame.shape[1])), generator(seed, 0)
    start, rotation = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-1, 1))
    curvature, speed = float(rng.uniform(-1.2, 1.2)), float(rng.uniform(0.6, 1.0))
    color = _COLORS[int(rng.integers(len(_COLORS)))] * rng.uniform(0.93, 1.07, 3)
    color = color.astype(np.float32)
    angle = start + 0.05 * rotation * step
    # The object slides along its edge, so that the covered area stays the same.
    slide = 0.03 * speed * step
    y, x = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    columns, rows = pixel_centers(size)
    across = rows * y + columns * x
    along = columns * y - rows * x - np.float32(slide * math.copysign(1, rotation))
    drift = (-slide * float(x), slide * float(y))
    if rotation < 0:
        drift = (-drift[0], -drift[1])
    bumps = clouds(generator(seed, 1), size, cells=1.6, octaves=3, drift=(drift,))
    field = across + 0.10 * bumps + np.float32(curvature) * np.square(along - 0.2)
    cover = soft_threshold(field, _OCCLUDED[severity - 1], 0.05, field)
    # The shading of a round object: dark at the edge, bright in the middle.
    depth = soft_threshold(field, 0.8 * _OCCLUDED[severity - 1], 0.5, field)
    folds = clouds(generator(seed, 2), size, cells=4, octaves=4, drift=(drift,))
    shade = 0.55 + 0.45 * depth + 0.13 * folds
    shade *= 1.1 - 0.5 * distance(size, 0, 0) ** 2
    over = resize(shade.astype(np.float32), *frame.shape[:2])[..., None] * color
    return blend(frame, over, cover)


_COLORS = np.array(
    [
        [168, 84, 72],  # tissue
        [196, 128, 104],  # fat and tissue
        [206, 198, 186],  # gauze
        [186, 150, 140],  # gauze with blood
        [120, 122, 128],  # steel
        [58, 54, 58],  # a dark shaft
    ],
    np.float64,
)
