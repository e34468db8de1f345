"""Instrument parts, drawn once per sequence as small relief images.

Lengths are in shaft diameters. Every part points along +x, away from the shaft, and its
origin is the joint it rotates about. Only the claspers depend on the instrument type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.synthetic.fields import Field, fractal

Color = tuple[float, float, float]

STEEL = (0.86, 0.86, 0.88)
DARK = (0.17, 0.175, 0.19)
CARBIDE = (0.62, 0.58, 0.50)
IVORY = (0.80, 0.76, 0.66)

SHAFT_LENGTH = 15.0
TAPER = 0.035
"""Increase of the shaft's width toward the camera, per diameter of length."""

TYPES = (
    "Bipolar Forceps",
    "Prograsp Forceps",
    "Large Needle Driver",
    "Vessel Sealer",
    "Grasping Retractor",
    "Monopolar Curved Scissors",
    "Other",
)
"""Type number `k` is `TYPES[k - 1]`."""


@dataclass(frozen=True)
class Sprite:
    """Image of a part.

    Attributes:
        color: RGBA image.
        relief: RGB image of (normal x, normal y, metal); normals map -1..1 to 0..255.
        origin: pixel (x, y) of the joint.
        density: pixels per shaft diameter.
    """

    color: Image.Image
    relief: Image.Image
    origin: tuple[float, float]
    density: float


@dataclass(frozen=True)
class Coat:
    """The surface of a shaft.

    Attributes:
        color: RGB in 0..1.
        metal: 0 for a dull or painted tube, 1 for bare steel.
        grain: strength of streaks and wear.
        rings: (x, half width, color, metal) of each ring; x < 0 in shaft diameters.
        text: text printed along the shaft; empty for none.
        text_at: start of the text, x in shaft diameters (negative).
        text_height: height of the text in shaft diameters.
        text_color: RGB of the text.
    """

    color: Color = DARK
    metal: float = 0.0
    grain: float = 0.2
    rings: tuple[tuple[float, float, Color, float], ...] = ()
    text: str = ""
    text_at: float = -4.0
    text_height: float = 0.42
    text_color: Color = (0.85, 0.85, 0.85)


DA_VINCI = Coat(
    rings=((-0.32, 0.018, (0.5, 0.5, 0.52), 0.6), (-0.42, 0.018, (0.5, 0.5, 0.52), 0.6))
)
"""Dark tube with two thin rings, as of a da Vinci instrument."""


class Canvas:
    """Canvas for painting shapes given by signed distance and height."""

    def __init__(
        self, left: float, right: float, half_width: float, density: float
    ) -> None:
        step = 1 / density
        self.density = density
        self.origin = (-left * density, half_width * density)
        self.x, self.y = np.meshgrid(
            np.arange(left, right, step, dtype=np.float32) + np.float32(step / 2),
            np.arange(-half_width, half_width, step, dtype=np.float32)
            + np.float32(step / 2),
        )
        self.z = np.zeros_like(self.x)
        self.alpha = np.zeros_like(self.x)
        self.metal = np.zeros_like(self.x)
        self.color = np.zeros((*self.x.shape, 3), np.float32)

    def paint(
        self,
        distance: Field,
        z: Field | float,
        color: tuple[float, float, float],
        metal: float = 1.0,
        grain: Field | float = 1.0,
    ) -> None:
        """Paints where `distance` (shaft diameters, negative inside) is below 0."""
        cover = np.clip(0.5 - distance * self.density, 0, 1)
        tone = np.float32(1) * grain
        paint = np.asarray(tone)[..., None] * np.array(color, np.float32)
        self.color += cover[..., None] * (paint - self.color)
        self.z += cover * (z - self.z)
        self.metal += cover * (metal - self.metal)
        self.alpha = np.maximum(self.alpha, cover)

    def write(self, text: str, x: float, height: float, color: Color) -> None:
        """Writes `text` centered on the axis from `x` on, `height` diameters high."""
        font = ImageFont.load_default(size=max(6.0, height * self.density))
        picture = Image.new("L", (self.x.shape[1], self.x.shape[0]))
        at = (self.origin[0] + x * self.density, self.origin[1])
        ImageDraw.Draw(picture).text(at, text, fill=255, font=font, anchor="lm")
        cover = (np.asarray(picture, np.float32) / 255)[..., None]
        self.color += cover * (np.array(color, np.float32) - self.color)

    def cut(self, distance: Field) -> None:
        """Cuts a hole where `distance` is below 0."""
        self.alpha *= 1 - np.clip(0.5 - distance * self.density, 0, 1)

    def noise(
        self, rng: np.random.Generator, cell: float, octaves: int, gain: float
    ) -> Field:
        extent = (self.x.shape[0] / self.density, self.x.shape[1] / self.density)
        return fractal(rng, extent, self.density, cell, octaves, gain)

    def sprite(self, rng: np.random.Generator) -> Sprite:
        """Returns the finished part, with random dents and smears."""
        dents, smears = self.noise(rng, 0.34, 3, 0.4), self.noise(rng, 0.22, 5, 0.6)
        self.color *= (1 + 0.15 * self.metal * np.clip(smears, -2.5, 1))[..., None]
        gy, gx = np.gradient(self.z + 0.012 * self.metal * dents, 1 / self.density)
        slope = np.sqrt(1 + gx * gx + gy * gy)
        planes = (-gx / slope, -gy / slope, 2 * self.metal - 1)
        relief = np.stack([np.clip(p, -1, 1) for p in planes], -1)
        color = np.concatenate([self.color, self.alpha[..., None]], -1)
        # Extend the color outwards; otherwise soft edges would mix with black.
        bare = self.alpha < 0.02
        color[bare, :3] = color[~bare, :3].mean(0)
        return Sprite(
            Image.fromarray((np.clip(color, 0, 1) * 255 + 0.5).astype(np.uint8)),
            Image.fromarray(((relief + 1) * 127.5).astype(np.uint8)),
            self.origin,
            self.density,
        )


def disc(c: Canvas, x: float, y: float, radius: float) -> Field:
    """Returns the signed distance to a disk."""
    return np.hypot(c.x - x, c.y - y) - np.float32(radius)


def box(c: Canvas, x0: float, x1: float, y0: float, y1: float, r: float) -> Field:
    """Returns the signed distance to a box with corner radius `r`."""
    dx = np.abs(c.x - (x0 + x1) / 2) - ((x1 - x0) / 2 - r)
    dy = np.abs(c.y - (y0 + y1) / 2) - ((y1 - y0) / 2 - r)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - np.float32(r)


def blade(c: Canvas, start: float, end: float, middle: Field, half: Field) -> Field:
    """Returns the signed distance to a strip of half width `half` around `middle`."""
    ends = np.maximum(start - c.x, c.x - end)
    across = np.abs(c.y - middle) - half
    corner = np.hypot(np.maximum(ends + half, 0), np.maximum(across + half, 0)) - half
    return np.maximum(np.maximum(across, ends), np.where(ends > -half, corner, -9))


def bevel(distance: Field, depth: float, slope: float = 1.0) -> Field:
    """Returns the height of a surface with rounded edges that never becomes flat."""
    return 1.4 * slope * depth * (1 - np.exp(np.minimum(distance, 0) / (1.4 * depth)))


def shaft(
    rng: np.random.Generator,
    density: float,
    coat: Coat = DA_VINCI,
    length: float = SHAFT_LENGTH,
    taper: float = TAPER,
) -> Sprite:
    """Draws the tube from x = 0 (distal) to -length, widening with -x by `taper`."""
    c = Canvas(-length, 0.1, 0.55 + 0.5 * taper * length, density)
    half = 0.5 * (1 - taper * np.minimum(c.x, 0))
    tube = np.maximum(np.abs(c.y) - half, c.x)
    z = np.sqrt(np.clip(half**2 - c.y**2, 1e-4, None))
    extent = (c.x.shape[0] / density, c.x.shape[1] / density)
    streaks = fractal(rng, extent, density, 0.1, 3, gain=0.7, stretch=14.0)
    wear = fractal(rng, extent, density, 0.5, 4, gain=0.7, stretch=2.5)
    grain = 1 + coat.grain * streaks + coat.grain * wear
    c.paint(tube, z, coat.color, coat.metal, grain)
    for x, width, color, metal in coat.rings:
        ring = np.maximum(np.abs(c.x - x + 0.1 * (1 - 2 * z)) - width, tube)
        c.paint(ring, z, color, metal)
    if coat.text:
        c.write(coat.text, coat.text_at, coat.text_height, coat.text_color)
    return c.sprite(rng)


def sleeve(rng: np.random.Generator, density: float) -> Sprite:
    """Draws the steel end of the tube with the fork of the first joint, at x = 1.15."""
    c = Canvas(-0.12, 1.6, 0.56, density)
    z = np.sqrt(np.clip(0.25 - c.y**2, 1e-4, None))
    # Seen from above, the round end of the tube curves toward the tip.
    tube = box(c, -0.05, 0.62, -0.5, 0.5, 0.04)
    c.paint(tube, z, STEEL)
    seam = np.abs(c.x - 0.46 + 0.1 * (1 - 2 * z)) - 0.01
    c.paint(np.maximum(seam, tube), z - 0.02, (0.45, 0.45, 0.46), 0.8)
    c.paint(box(c, 0.5, 0.8, -0.22, 0.22, 0.1), 0.12, DARK, 0.5)
    for side in (-1.0, 1.0):
        ear = blade(c, 0.5, 1.42, side * (0.36 - 0.1 * c.x), 0.13 + 0 * c.x)
        c.paint(ear, 0.3 + bevel(ear, 0.07), STEEL)
    for y in (-0.13, 0.0, 0.13):
        cable = np.maximum(np.abs(c.y - y) - 0.035, np.abs(c.x - 0.85) - 0.32)
        twist = 0.85 + 0.2 * np.sin(70 * (c.x + 0.5 * c.y))
        c.paint(cable, 0.2 + bevel(cable, 0.035, 2.0), STEEL, 1.0, twist)
    return c.sprite(rng)


def wrist(rng: np.random.Generator, density: float) -> Sprite:
    """Draws the link from the first joint (origin) to the claspers' pin at x = 0.95."""
    c = Canvas(-0.5, 1.35, 0.5, density)
    half = 0.40 - 0.10 * np.clip(c.x, 0, 1) ** 2
    body = blade(c, -0.1, 1.14, 0 * c.x, half)
    c.paint(body, 0.25 + bevel(body, 0.16, 0.9), STEEL)
    pulley = disc(c, 0.0, 0.0, 0.36)
    c.paint(pulley, 0.35 + bevel(pulley, 0.06), STEEL)
    for radius in (0.28, 0.19):
        groove = np.abs(disc(c, 0.0, 0.0, radius)) - 0.014
        c.paint(groove, 0.33, (0.5, 0.5, 0.52), 0.8)
    hub = disc(c, 0.0, 0.0, 0.11)
    c.paint(hub, 0.36 + bevel(hub, 0.08, 1.4), STEEL)
    for side in (-1.0, 1.0):
        cable = blade(c, 0.2, 0.9, side * (0.24 - 0.1 * c.x), 0.04 + 0 * c.x)
        c.paint(cable, 0.36 + bevel(cable, 0.04, 2.0), STEEL)
        edge = np.abs(c.y - side * (0.29 - 0.1 * c.x)) - 0.014
        c.paint(np.maximum(edge, np.abs(c.x - 0.55) - 0.3), 0.3, DARK, 0.4)
    slot = box(c, 0.36, 0.72, -0.07, 0.07, 0.06)
    c.paint(slot, 0.24, DARK, 0.3)
    pin = disc(c, 0.95, 0.0, 0.2)
    c.paint(pin, 0.33 + bevel(pin, 0.06), STEEL)
    c.paint(np.abs(disc(c, 0.95, 0.0, 0.13)) - 0.015, 0.32, DARK, 0.5)
    c.paint(disc(c, 0.95, 0.0, 0.055), 0.34, DARK, 0.6)
    return c.sprite(rng)


def jaw(rng: np.random.Generator, kind: int, density: float) -> Sprite:
    """Draws a clasper that bends toward +y; the other one is its mirror image.

    Args:
        rng: generator for dents and smears.
        kind: type number 1..7. Type 7 is a probe, drawn as one body.
        density: pixels per shaft diameter.
    """
    c = Canvas(-0.3, 3.0, 0.85, density)
    if kind == 1:
        middle = 0.16 + 0.20 * np.sin(np.clip(c.x / 1.9, 0, 1) * math.pi * 0.9)
        half = 0.17 - 0.115 * np.clip(c.x / 1.9, 0, 1)
        shape = blade(c, -0.12, 1.9, middle - 0.1, half)
        c.paint(shape, 0.2 + bevel(shape, 0.06, 1.2), STEEL)
        heel = blade(c, -0.15, 0.5, 0.04 + 0 * c.x, 0.2 + 0 * c.x)
        c.paint(heel, 0.25 + bevel(heel, 0.05), IVORY, 0.0)
        teeth(c, shape, 0.7, 1.8, 0.09, middle - 0.1 - half, 0.05)
    elif kind == 2:
        loop(c, 2.0, 0.24, 0.13)
    elif kind == 3:
        half = 0.21 - 0.09 * np.clip(c.x / 1.15, 0, 1)
        shape = blade(c, -0.15, 1.15, half - 0.03, half)
        hatch = 0.75 + 0.35 * np.sin(42 * (c.x + c.y)) * np.sin(42 * (c.x - c.y))
        c.paint(shape, 0.2 + bevel(shape, 0.07, 1.1), STEEL)
        insert = blade(c, 0.35, 1.15, half * 0.45, 0.55 * half)
        c.paint(insert, 0.25 + 0.02 * hatch, CARBIDE, 0.6, hatch)
    elif kind == 4:
        half = 0.33 - 0.10 * np.clip(c.x / 2.1 - 0.55, 0, 1) * 2
        shape = blade(c, -0.2, 2.1, half - 0.05, half)
        c.paint(shape, 0.2 + bevel(shape, 0.16, 1.0), DARK, 0.0, 0.9)
        plate = blade(c, 0.3, 2.02, 0.07 + 0 * c.x, 0.07 + 0 * c.x)
        c.paint(plate, 0.33 + bevel(plate, 0.04), STEEL)
        for x in (0.8, 1.3, 1.8):
            c.paint(disc(c, x, 0.36, 0.035), 0.3, STEEL)
    elif kind == 5:
        half = 0.20 + 0.20 * np.clip((c.x - 0.2) / 0.8, 0, 1)
        shape = blade(c, -0.15, 2.6, half - 0.06, half)
        c.paint(shape, 0.2 + bevel(shape, 0.07, 1.1), STEEL)
        for x in (0.85, 1.35, 1.85, 2.3):
            hole = box(c, x - 0.17, x + 0.17, 0.20, 0.52, 0.1)
            c.paint(hole - 0.04, 0.22 - bevel(hole - 0.04, 0.04), STEEL)
            c.cut(hole)
        teeth(c, shape, 0.4, 2.5, 0.16, -0.06 + 0 * c.x, 0.1)
    elif kind == 6:
        middle = 0.05 + 0.17 * np.clip(c.x / 1.7, 0, 1) ** 2 * 1.6
        half = 0.19 * np.sqrt(np.clip(1 - c.x / 1.75, 0, 1)) + 0.012
        shape = np.maximum(blade(c, -0.15, 1.75, middle, half), -0.02 - c.y)
        c.paint(shape, 0.2 + 0.35 * np.abs(c.y - middle), STEEL)
        edge = np.maximum(shape, c.y - middle + 0.35 * half)
        c.paint(edge, 0.25 - 0.5 * c.y, (0.95, 0.95, 0.96))
        cover = blade(c, -0.25, 0.42, 0.02 + 0 * c.x, 0.24 + 0 * c.x)
        c.paint(cover, 0.25 + bevel(cover, 0.12), (0.46, 0.46, 0.45), 0.0)
    elif kind == 7:
        half = 0.46 * np.sqrt(np.clip(1.06 - (c.x / 2.5) ** 4, 0, 1))
        body = blade(c, -0.25, 2.5, 0 * c.x, half)
        z = 0.2 + np.sqrt(np.clip(half**2 - c.y**2, 1e-4, None))
        c.paint(body, z, IVORY, 0.0)
        window = blade(c, 0.6, 2.3, 0 * c.x, 0.22 + 0 * c.x)
        c.paint(window, z, (0.30, 0.33, 0.40), 0.1)
        c.paint(np.maximum(np.abs(c.x - 0.35) - 0.03, body), z, DARK, 0.0)
    else:
        raise ValueError(f"instrument type {kind}: use a number from 1 to 7")
    return c.sprite(rng)


def loop(c: Canvas, end: float, half: float, rim: float) -> None:
    """Paints a clasper with a long window and teeth along its inner edge."""
    width = half + 0.03 * np.sin(np.clip(c.x / end, 0, 1) * math.pi)
    shape = blade(c, -0.15, end, half - 0.05 + 0 * c.x, width)
    c.paint(shape, 0.2 + bevel(shape, 0.05, 1.3), STEEL)
    window = blade(c, 0.55, end - rim, half - 0.03 + 0 * c.x, width - rim)
    c.cut(window)
    teeth(c, shape, 0.6, end - 0.15, 0.1, -0.05 + 0 * c.x, 0.06)


def teeth(
    c: Canvas,
    shape: Field,
    start: float,
    end: float,
    pitch: float,
    edge: Field,
    depth: float,
) -> None:
    """Paints dark notches along the curve `edge`, `depth` into the blade."""
    wave = (c.x / pitch) % 1.0
    band = np.maximum(np.abs(c.y - edge) - depth, start - c.x)
    band = np.maximum(np.maximum(band, c.x - end), shape)
    c.paint(np.maximum(band, (np.abs(wave - 0.5) - 0.2) * pitch), 0.16, DARK, 0.5)
