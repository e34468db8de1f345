"""Corruptions by light and optics: low light, defocus, motion blur, glare."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_pipelines.corruption.fields import (
    Frame,
    blend,
    clouds,
    distance,
    field_size,
    soft_threshold,
    to_uint8,
)
from data_pipelines.synthetic.fields import generator, resize

# For severities 1 to 5.
_LIGHT = (0.50, 0.32, 0.20, 0.13, 0.08)
_NOISE = (5.0, 8.0, 12.0, 17.0, 22.0)
_DEFOCUS = (0.008, 0.014, 0.022, 0.032, 0.045)
_MOTION = (0.04, 0.07, 0.11, 0.16, 0.22)
_GLARE = (0.05, 0.11, 0.20, 0.32, 0.46)


def low_light(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Darkens the frame unevenly and adds the noise of a sensor at high gain."""
    rng = generator(seed, 0)
    y, x = rng.uniform(-0.35, 0.35, 2)
    light = _LIGHT[severity - 1] * float(rng.uniform(0.85, 1.15))
    light *= 1 + 0.12 * math.sin(0.6 * step + float(rng.uniform(0, 6)))
    size = frame.shape[:2]
    lamp = light * (0.55 + 0.9 * np.exp(-3 * distance(field_size(size), y, x) ** 2))
    lamp = resize(lamp.astype(np.float32), *size)[..., None]
    # Bluish, like a dim lamp seen by a camera with fixed white balance.
    tint = np.array([0.95, 1.0, 1.08], np.float32)
    dark = frame * (lamp * tint)
    noise = generator(seed, 1, step)
    fine = noise.standard_normal((*size, 1), dtype=np.float32)
    half = (-(-size[0] // 2), -(-size[1] // 2), 3)
    coarse = noise.standard_normal(half, dtype=np.float32)
    coarse = coarse.repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]
    # Shot noise grows with the square root of the light; sensor noise is constant.
    spread = np.float32(_NOISE[severity - 1]) * (0.4 + np.sqrt(dark / 255))
    return to_uint8(dark + spread * (0.7 * fine + 0.5 * coarse))


def defocus(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Blurs the frame; the radius oscillates slightly, like an autofocus."""
    factor, phase = generator(seed, 0).uniform((0.85, 0), (1.15, 2 * math.pi))
    radius = _DEFOCUS[severity - 1] * float(factor)
    radius *= (1 + 0.12 * math.sin(0.35 * step + float(phase))) * frame.shape[0]
    image = Image.fromarray(frame)
    # A box blur and a Gaussian blur approximate the disk of a defocused lens.
    image = image.filter(ImageFilter.BoxBlur(radius))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.5 * radius)))


def motion(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Blurs the frame along a line that rotates slowly."""
    rng = generator(seed, 0)
    angle = float(rng.uniform(0, math.pi)) + 0.12 * step * float(rng.uniform(-1, 1))
    length = _MOTION[severity - 1] * (1 + 0.15 * math.sin(0.9 * step)) * frame.shape[0]
    # By doubling, a pixel is the mean of 2**k pixels along the line after k steps.
    steps = max(1, math.ceil(math.log2(max(2.0, length))))
    pitch = length / 2**steps
    direction = pitch * math.sin(angle), pitch * math.cos(angle)
    mean, total_shift = frame.astype(np.float32), np.zeros(2)
    for k in range(steps):
        shift = np.rint([2**k * direction[0], 2**k * direction[1]]).astype(int)
        mean += _shift(mean, int(shift[0]), int(shift[1]))
        mean *= np.float32(0.5)
        total_shift += shift
    # The blur is centered, so that the scene stays aligned with its label.
    back = np.rint(-total_shift / 2).astype(int)
    return to_uint8(_shift(mean, int(back[0]), int(back[1])))


def glare(frame: Frame, severity: int, seed: int, step: int) -> Frame:
    """Overexposes the frame where wet tissue reflects the lamp."""
    size, rng = field_size((frame.shape[0], frame.shape[1])), generator(seed, 0)
    y, x, angle = rng.uniform(-0.3, 0.3), rng.uniform(-0.4, 0.4), rng.uniform(0, 6.3)
    y += 0.012 * step * math.sin(angle)
    x += 0.012 * step * math.cos(angle)
    share, radius = _GLARE[severity - 1], distance(size, y, x)
    image = Image.fromarray(frame).convert("L").resize((size[1], size[0]))
    image = image.filter(ImageFilter.BoxBlur(0.008 * size[0]))
    luma = np.asarray(image, np.float32) / 255
    # Uneven, like a wet surface, and moving with the light.
    drift = ((y, x), (0.5 * y, 0.5 * x))
    wetness = clouds(generator(seed, 1), size, cells=4, octaves=4, drift=drift)
    field = 0.35 * wetness + 2.2 * luma - 2.6 * radius
    saturated = soft_threshold(field, share, 0.9, field)
    halo = np.exp(-(radius**2) / (0.05 + 0.9 * share))
    # Lens and sensor scatter light around saturated pixels.
    scatter = Image.fromarray((255 * saturated).astype(np.uint8))
    scatter = scatter.filter(ImageFilter.BoxBlur(0.07 * size[0]))
    bloom = np.asarray(scatter.filter(ImageFilter.BoxBlur(0.05 * size[0])), np.float32)
    veil = 0.35 * bloom / 255 + (0.04 + 0.05 * severity) * halo
    gain = resize((1 + 0.35 * severity * halo).astype(np.float32), *frame.shape[:2])
    cover = 1 - (1 - saturated) * (1 - np.minimum(veil, 0.9))
    bright = np.minimum(frame * gain[..., None], 255)
    return blend(bright, np.array([255, 253, 247], np.float32), cover)


def _shift(picture: NDArray, down: int, right: int) -> NDArray:
    """Shifts by whole pixels; edges repeat."""
    for axis, shift in ((0, down), (1, right)):
        if shift:
            index = np.arange(picture.shape[axis]) - shift
            picture = picture.take(index, axis, mode="clip")
    return picture
