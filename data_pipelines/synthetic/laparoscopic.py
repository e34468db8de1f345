"""Rigid laparoscopic instruments: tubes with varied surfaces and a tip, no wrist.

Lengths are in shaft diameters, as in `sprites`. A tip points along +x from the end of
its shaft and is drawn either whole, around the axis, or as one of two mirrored
claspers.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipelines.synthetic.sprites import (
    DARK,
    IVORY,
    STEEL,
    Canvas,
    Coat,
    Color,
    Sprite,
    bevel,
    blade,
    box,
    disc,
    teeth,
)

RIGID_TYPES = (
    "Fenestrated Grasper",
    "Dissector",
    "Scissors",
    "Hook",
    "Suction Tube",
    "Stapler",
    "Clip Applier",
    "Needle Holder",
)
"""Type number `k` is `RIGID_TYPES[k - 8]`."""

FIRST_RIGID = 8
ONE_PIECE = (11, 12)
"""Types with a one-piece tip: hook and suction tube."""

_SYLLABLES = ("CO", "VI", "ER", "BE", "STO", "RZ", "LI", "GA", "ME", "5", "10", "mm")


def random_coat(rng: np.random.Generator) -> Coat:
    """Draws a shaft's surface: black, gray, steel, tinted steel, white or colored."""
    kind = rng.choice(6, p=(0.34, 0.16, 0.24, 0.1, 0.1, 0.06))
    tone = math.exp(rng.uniform(-0.5, 0.35))
    color, metal = (
        ((0.1, 0.105, 0.115), rng.uniform(0, 0.35)),
        ((0.42, 0.43, 0.45), rng.uniform(0, 0.5)),
        ((0.8, 0.8, 0.82), rng.uniform(0.75, 1.0)),
        ((0.78, 0.66, 0.46), rng.uniform(0.6, 1.0)),
        ((0.84, 0.82, 0.78), 0.0),
        (tuple(rng.uniform(0.1, 0.75, 3)), 0.0),
    )[kind]
    tint = rng.uniform(0.93, 1.07, 3)
    color = _rgb(np.clip(np.array(color) * tone * tint, 0.02, 0.95))
    rings = []
    for _ in range(int(rng.integers(0, 4))):
        x = -float(rng.exponential(1.5)) - 0.05
        ring: Color = STEEL if rng.uniform() < 0.6 else _rgb(rng.uniform(0.05, 0.9, 3))
        rings.append((x, float(rng.uniform(0.01, 0.3)), ring, float(rng.uniform())))
    text = ""
    if rng.uniform() < 0.4:
        text = "".join(rng.choice(_SYLLABLES, int(rng.integers(2, 7))))
    dark = sum(color) < 1.5
    return Coat(
        color=color,
        metal=float(metal),
        grain=float(rng.uniform(0.02, 0.25)),
        rings=tuple(rings),
        text=text,
        text_at=-float(rng.uniform(2.5, 9.0)),
        text_height=float(rng.uniform(0.3, 0.62)),
        text_color=(0.88, 0.88, 0.88) if dark else (0.1, 0.12, 0.2),
    )


def neck(rng: np.random.Generator, density: float) -> Sprite:
    """Draws the short steel end of the tube with the tip's pin, at x = 0.6."""
    c = Canvas(-0.1, 0.95, 0.52, density)
    z = np.sqrt(np.clip(0.25 - c.y**2, 1e-4, None))
    half = 0.47 - 0.14 * np.clip(c.x, 0, 1)
    body = blade(c, -0.05, 0.8, 0 * c.x, half)
    c.paint(body, z, STEEL)
    slot = box(c, 0.2, 0.95, -0.09, 0.09, 0.04)
    c.paint(slot, 0.1, DARK, 0.4)
    pin = disc(c, 0.6, 0.0, 0.13)
    c.paint(pin, 0.4 + bevel(pin, 0.04), STEEL)
    return c.sprite(rng)


def tip(rng: np.random.Generator, kind: int, density: float) -> Sprite:
    """Draws the working end of a rigid instrument.

    Args:
        rng: generator for shape and wear; two instruments of a type differ.
        kind: type number 8..15. Types in `ONE_PIECE` are drawn whole, the others as one
            clasper that bends toward +y; the other clasper is its mirror image.
        density: pixels per shaft diameter.
    """
    length = float(rng.uniform(2.2, 4.2))
    c = Canvas(-0.3, length + 1.0, 1.3, density)
    coat: Color = STEEL if rng.uniform() < 0.75 else (0.2, 0.2, 0.21)
    metal = 1.0 if coat is STEEL else 0.3
    along = np.clip(c.x / length, 0, 1)
    if kind == 8:
        half = 0.19 + 0.09 * np.sin(along * math.pi)
        jaw = blade(c, -0.15, length, 0.17 + 0 * c.x, half)
        c.paint(jaw, 0.2 + bevel(jaw, 0.06, 1.2), coat, metal)
        if rng.uniform() < 0.7:
            hole = blade(c, 0.35 * length, 0.9 * length, 0.2 + 0 * c.x, half - 0.13)
            c.cut(hole)
        teeth(c, jaw, 0.3 * length, 0.95 * length, 0.12, -0.04 + 0 * c.x, 0.06)
    elif kind == 9:
        middle = 0.12 + 0.5 * along**2 - 0.12 * along
        jaw = blade(c, -0.15, 0.75 * length, middle, 0.2 - 0.13 * along)
        c.paint(jaw, 0.2 + bevel(jaw, 0.06, 1.2), coat, metal)
        teeth(c, jaw, 0.6, 0.7 * length, 0.1, middle - 0.17, 0.05)
    elif kind == 10:
        middle = 0.05 + 0.22 * along**2
        half = 0.2 * np.sqrt(np.clip(1.02 - along, 0, 1)) + 0.015
        jaw = np.maximum(blade(c, -0.15, 0.6 * length, middle, half), -0.03 - c.y)
        c.paint(jaw, 0.2 + 0.35 * np.abs(c.y - middle), coat, metal)
    elif kind == 11:
        stem = blade(c, -0.1, 1.6, 0 * c.x, 0.17 + 0 * c.x)
        sheath: Color = IVORY if rng.uniform() < 0.5 else (0.85, 0.5, 0.2)
        c.paint(stem, 0.2 + bevel(stem, 0.1), sheath, 0.0)
        wire = blade(c, 1.4, 2.2, 0 * c.x, 0.07 + 0 * c.x)
        c.paint(wire, 0.25 + bevel(wire, 0.05), STEEL)
        bent = blade(c, 2.06, 2.2, 0.3 + 0 * c.x, 0.36 + 0 * c.x)
        c.paint(bent, 0.25 + bevel(bent, 0.05), STEEL)
    elif kind == 12:
        end = 0.35 * length
        half = 0.46 - 0.08 * np.clip(c.x / max(end, 0.1) - 0.7, 0, 1)
        tube = blade(c, -0.25, end, 0 * c.x, half)
        z = np.sqrt(np.clip(half**2 - c.y**2, 1e-4, None))
        c.paint(tube, z, coat, metal)
        for x in np.arange(0.1, end - 0.2, 0.35):
            hole = disc(c, x, rng.uniform(-0.2, 0.2), 0.09)
            c.paint(hole, z, (0.08, 0.05, 0.05), 0.0)
    elif kind == 13:
        body = blade(c, -0.25, length, 0.21 + 0 * c.x, 0.24 - 0.04 * along)
        shade: Color = (0.75, 0.75, 0.76) if rng.uniform() < 0.5 else (0.3, 0.32, 0.36)
        c.paint(body, 0.2 + bevel(body, 0.14), shade, float(rng.uniform(0, 1)))
        plate = blade(c, 0.4, length - 0.1, 0.05 + 0 * c.x, 0.06 + 0 * c.x)
        c.paint(plate, 0.3, IVORY, 0.0)
        for x in np.arange(0.5, length - 0.3, 0.4):
            c.paint(box(c, x, x + 0.07, 0.1, 0.38, 0.02), 0.3, DARK, 0.2)
    elif kind == 14:
        end = 0.55 * length
        arm = blade(c, -0.15, end, 0.3 * along + 0.06, 0.13 + 0 * c.x)
        c.paint(arm, 0.2 + bevel(arm, 0.08), coat, metal)
        clip = box(c, end - 0.6, end, 0.02, 0.14, 0.03)
        c.paint(clip, 0.3, (0.85, 0.85, 0.9))
    elif kind == 15:
        jaw = blade(c, -0.15, 0.5 * length, 0.15 - 0.05 * along, 0.2 - 0.07 * along)
        c.paint(jaw, 0.2 + bevel(jaw, 0.07), coat, metal)
        insert = blade(c, 0.3, 0.48 * length, 0.07 + 0 * c.x, 0.07 + 0 * c.x)
        c.paint(insert, 0.28, (0.62, 0.52, 0.34), 0.7)
    else:
        raise ValueError(f"rigid instrument type {kind}: use a number from 8 to 15")
    return c.sprite(rng)


def _rgb(values: np.ndarray) -> Color:
    return float(values[0]), float(values[1]), float(values[2])
