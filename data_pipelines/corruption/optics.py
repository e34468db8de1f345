"""What light and lens do to a whole frame: darkness, defocus, motion, glare."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_pipelines.corruption.fields import (
    blend,
    clouds,
    distance,
    field_size,
    soft_threshold,
    to_uint8,
)
from data_pipelines.synthetic.fields import generator, resize

Frame = NDArray[np.uint8]

# By severity 1 to 5.
_LIGHT = (0.50, 0.32, 0.20, 0.13, 0.08)
_NOISE = (5.0, 8.0, 12.0, 17.0, 22.0)
_DEFOCUS = (0.008, 0.014, 0.022, 0.032, 0.045)
_MOTION = (0.04, 0.07, 0.11, 0.16, 0.22)
_GLARE = (0.05, 0.11, 0.20, 0.32, 0.46)


def low_light(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Little light from one side, and the noise of a sensor that amplifies it."""
    rng = generator(seed, 0)
    y, x = rng.uniform(-0.35, 0.35, 2)
    light = _LIGHT[severity - 1] * float(rng.uniform(0.85, 1.15))
    light *= 1 + 0.12 * math.sin(0.6 * step + float(rng.uniform(0, 6)))
    size = frame.shape[:2]
    lamp = light * (0.55 + 0.9 * np.exp(-3 * distance(field_size(size), y, x) ** 2))
    lamp = resize(lamp.astype(np.float32), *size)[..., None]
    # Cold at low levels, as a dim lamp on a camera with fixed balance is.
    tint = np.array([0.95, 1.0, 1.08], np.float32)
    dark = frame * (lamp * tint)
    noise = generator(seed, 1, step)
    fine = noise.standard_normal((*size, 1), dtype=np.float32)
    half = (-(-size[0] // 2), -(-size[1] // 2), 3)
    coarse = noise.standard_normal(half, dtype=np.float32)
    coarse = coarse.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]
    # Photons add noise with the root of the light, the sensor always the same.
    spread = np.float32(_NOISE[severity - 1]) * (0.4 + np.sqrt(dark / 255))
    return to_uint8(dark + spread * (0.7 * fine + 0.5 * coarse))


def defocus(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Out of focus, the lens hunting a little."""
    about, phase = generator(seed, 0).uniform((0.85, 0), (1.15, 2 * math.pi))
    radius = _DEFOCUS[severity - 1] * float(about)
    radius *= (1 + 0.12 * math.sin(0.35 * step + float(phase))) * frame.shape[0]
    image = Image.fromarray(frame)
    # A disk, about: two boxes, one a bit wider than a Gaussian would have.
    image = image.filter(ImageFilter.BoxBlur(radius))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.5 * radius)))


def motion(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Smeared along a line that turns slowly."""
    rng = generator(seed, 0)
    angle = float(rng.uniform(0, math.pi)) + 0.12 * step * float(rng.uniform(-1, 1))
    length = _MOTION[severity - 1] * (1 + 0.15 * math.sin(0.9 * step)) * frame.shape[0]
    # Doubling: after k steps a pixel is the mean of 2**k along the line.
    steps = max(1, math.ceil(math.log2(max(2.0, length))))
    pitch = length / 2**steps
    way = pitch * math.sin(angle), pitch * math.cos(angle)
    total, moved = frame.astype(np.float32), np.zeros(2)
    for k in range(steps):
        shift = np.rint([2**k * way[0], 2**k * way[1]]).astype(int)
        total += _shifted(total, int(shift[0]), int(shift[1]))
        total *= np.float32(0.5)
        moved += shift
    # Back to the middle, so that the scene stays where its label is.
    back = np.rint(-moved / 2).astype(int)
    return to_uint8(_shifted(total, int(back[0]), int(back[1])))


def glare(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Wet tissue throws the lamp back: overexposed, burnt out where it is brightest."""
    size, rng = field_size((frame.shape[0], frame.shape[1])), generator(seed, 0)
    y, x, way = rng.uniform(-0.3, 0.3), rng.uniform(-0.4, 0.4), rng.uniform(0, 6.3)
    y += 0.012 * step * math.sin(way)
    x += 0.012 * step * math.cos(way)
    share, away = _GLARE[severity - 1], distance(size, y, x)
    image = Image.fromarray(frame).convert("L").resize((size[1], size[0]))
    image = image.filter(ImageFilter.BoxBlur(0.008 * size[0]))
    luma = np.asarray(image, np.float32) / 255
    # Uneven, as wet surfaces are, and moving with the light.
    drift = ((y, x), (0.5 * y, 0.5 * x))
    wet = clouds(generator(seed, 1), size, cells=4, octaves=4, drift=drift)
    field = 0.35 * wet + 2.2 * luma - 2.6 * away
    burnt = soft_threshold(field, share, 0.9, field)
    halo = np.exp(-(away**2) / (0.05 + 0.9 * share))
    # The light that lens and sensor scatter around what is burnt out.
    wide = Image.fromarray((255 * burnt).astype(np.uint8))
    wide = wide.filter(ImageFilter.BoxBlur(0.07 * size[0]))
    bloom = np.asarray(wide.filter(ImageFilter.BoxBlur(0.05 * size[0])), np.float32)
    veil = 0.35 * bloom / 255 + (0.04 + 0.05 * severity) * halo
    gain = resize((1 + 0.35 * severity * halo).astype(np.float32), *frame.shape[:2])
    cover = 1 - (1 - burnt) * (1 - np.minimum(veil, 0.9))
    lit = np.minimum(frame * gain[..., None], 255)
    return blend(lit, np.array([255, 253, 247], np.float32), cover)


def _shifted(picture: NDArray, down: int, right: int) -> NDArray:
    """Moved by whole pixels, the edge repeated."""
    for axis, shift in ((0, down), (1, right)):
        if shift:
            index = np.arange(picture.shape[axis]) - shift
            picture = picture.take(index, axis, mode="clip")
    return picture
