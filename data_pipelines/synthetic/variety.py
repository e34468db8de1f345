"""Scenes with domain randomization, for training that transfers to real video.

`make_scene` simulates one robotic operation. Here every scene has random instruments
(zero to four, da Vinci or rigid laparoscopic ones) with random sizes and directions,
random tissue and a random camera. Everything that varies in real video should vary here
as well, so that a network relies only on what instruments have in common.
"""

from __future__ import annotations

import math

import numpy as np

from data_pipelines.synthetic import laparoscopic, sprites
from data_pipelines.synthetic.fields import (
    generator,
    make_episodes,
    make_track,
)
from data_pipelines.synthetic.instruments import Instrument, Tool, reflections_of
from data_pipelines.synthetic.look import random_look
from data_pipelines.synthetic.motion import Arm, make_camera
from data_pipelines.synthetic.render import Scene, check_scene
from data_pipelines.synthetic.tissue import KINDS, Bed, Kind, bake

# Probabilities of scenes with 0, 1, 2, 3 and 4 instruments.
_COUNTS = (0.06, 0.34, 0.36, 0.17, 0.07)
_COMMON = ("serosa", "muscle", "liver", "fat", "membrane", "bowel", "mesentery")
_RARE = ("kidney", "yellow fat", "gallbladder", "ligament", "deep liver", "clot")
_STRIPS = ("ligament", "membrane", "yellow fat", "serosa", "deep liver", "gauze")

_LOBULAR = ("fat", "yellow fat", "yellow fat", "mesentery", "serosa")


def make_varied_scene(
    seed: int, number: int, size: tuple[int, int] = (256, 320), rate: float = 25.0
) -> Scene:
    """Returns scene `number` of an endless series.

    Args:
        seed: seed of the series, 0 <= seed < 2**64.
        number: number of the scene in the series.
        size: (height, width) of the frames in pixels, at least 32 each.
        rate: frames per second of scene time.

    Raises:
        ValueError: a parameter is out of range.
    """
    check_scene(seed, number, size, rate)
    rng = generator(seed, number, 50)
    count = int(rng.choice(len(_COUNTS), p=_COUNTS))
    robotic = rng.uniform() < 0.5
    near = math.exp(rng.uniform(-0.75, 0.35))
    instruments = tuple(
        _instrument(seed, number, index, robotic, near, size) for index in range(count)
    )
    tissue = bake(seed, number, size, False, _bed(generator(seed, number, 51)))
    camera = make_camera(seed, number)
    return Scene(
        seed,
        number,
        size,
        rate,
        tissue,
        camera,
        instruments,
        reflections_of(camera.light, tissue.mean),
        look=random_look(generator(seed, number, 52)),
        wet=math.exp(generator(seed, number, 53).uniform(-1.2, 1.1)),
    )


def _instrument(
    seed: int,
    number: int,
    index: int,
    robotic: bool,
    near: float,
    size: tuple[int, int],
) -> Instrument:
    rng = generator(seed, number, 60, index)
    # A scene has mostly one family of instruments, as in real operations, but a rigid
    # grasper of an assistant next to robotic arms is common.
    rigid = rng.uniform() < (0.25 if robotic else 0.9)
    if rigid:
        kind = int(rng.integers(laparoscopic.FIRST_RIGID, laparoscopic.FIRST_RIGID + 8))
        width = 0.11 * math.exp(rng.uniform(-0.7, 0.7))
        coat = laparoscopic.random_coat(rng)
    else:
        kind = int(rng.integers(1, 8))
        width = 0.16 * math.exp(rng.uniform(-0.3, 0.3))
        coat = sprites.DA_VINCI if rng.uniform() < 0.75 else _dark_coat(rng)
    arm = _arm(rng, size[1] / size[0], float(np.clip(near * width, 0.03, 0.32)))
    density = 1.1 * arm.diameter * size[0]
    # Long enough to reach outside the frame, even if thin; at most twice as wide there.
    length = max(sprites.SHAFT_LENGTH, 2.4 / arm.diameter)
    taper = float(rng.uniform(0.0, 0.5)) / sprites.SHAFT_LENGTH
    taper = min(taper, 1.0 / length)
    shaft = sprites.shaft(rng, density, coat, length, taper)
    gain = float(math.exp(rng.uniform(-0.6, 0.5)))
    ramp = float(rng.uniform(-0.9, 2.2)) if rng.uniform() < 0.6 else 0.0
    if rigid:
        neck = laparoscopic.neck(rng, density)
        tip = laparoscopic.tip(rng, kind, density)
        one_piece = kind in laparoscopic.ONE_PIECE
        return Instrument(Tool(kind), arm, (shaft, neck, tip), one_piece, gain, ramp)
    parts = (
        shaft,
        sprites.sleeve(rng, density),
        sprites.wrist(rng, density),
        sprites.jaw(rng, kind, density),
    )
    return Instrument(Tool(kind), arm, parts, kind == 7, gain, ramp)


def _dark_coat(rng: np.random.Generator) -> sprites.Coat:
    """Draws a worn or different robotic tube, in gray levels near the usual ones."""
    tone = float(rng.uniform(0.08, 0.36))
    return sprites.Coat(
        color=(tone, tone, tone * float(rng.uniform(0.95, 1.2))),
        metal=float(rng.uniform(0, 0.4)),
        grain=float(rng.uniform(0.05, 0.3)),
        rings=sprites.DA_VINCI.rings if rng.uniform() < 0.5 else (),
    )


def _arm(rng: np.random.Generator, aspect: float, diameter: float) -> Arm:
    """Draws an arm that enters from a random direction and works anywhere in view."""
    half = aspect / 2
    # Arms enter from above less often than from the sides and from below.
    angle = rng.uniform(-0.25 * math.pi, 1.25 * math.pi)
    if rng.uniform() < 0.15:
        angle = rng.uniform(0, 2 * math.pi)
    reach = half + 0.45
    port = (reach * math.cos(angle), (0.5 + 0.45) * math.sin(angle))
    home = (
        float(rng.uniform(-0.75, 0.75) * half),
        float(rng.uniform(-0.38, 0.38)),
    )
    # Keep away from the port, where the direction of the shaft would be undefined.
    gap = math.hypot(home[0] - port[0], home[1] - port[1])
    if gap < 0.45:
        home = (-0.4 * port[0], -0.4 * port[1])
    return Arm(
        port=port,
        home=home,
        diameter=diameter,
        clearance=float(rng.uniform(0.08, 0.2)),
        reach=make_track(rng, 4, 1.7),
        wrist=make_track(rng, 3, 2.6),
        grip=make_track(rng, 1, 0.9),
        away=make_episodes(rng, rng.uniform(17.0, 24.0), 0.16, 1.2),
        buried=make_episodes(rng, rng.uniform(9.0, 13.0), 0.2, 0.9),
    )


def _bed(rng: np.random.Generator) -> Bed:
    """Draws the composition of the tissue, with shifted colors."""
    count = int(rng.integers(2, 6))
    setting = [str(name) for name in rng.choice(_COMMON, count)]
    for name, chance in (*((name, 0.12) for name in _RARE), ("char", 0.06)):
        if rng.uniform() < chance:
            setting.append(name)
    rng.shuffle(setting)
    if rng.uniform() < 0.05:
        setting.append("gauze")
    strips = rng.choice(_STRIPS, int(rng.integers(0, 5)))
    clusters = rng.choice(_LOBULAR, int(rng.integers(0, 4)))
    shift = rng.uniform(0.85, 1.15, 3)
    return Bed(
        kinds={name: _shift_colors(rng, kind, shift) for name, kind in KINDS.items()},
        setting=tuple(setting),
        strips=tuple(str(name) for name in strips),
        lobules=tuple(str(name) for name in clusters),
        blood=float(max(0.0, rng.uniform(-0.3, 0.95))),
        gloss=float(rng.uniform(0.2, 1.5)),
        stitches=bool(rng.uniform() < 0.15),
        density=0.9,
    )


def _shift_colors(rng: np.random.Generator, kind: Kind, shift: np.ndarray) -> Kind:
    """Scales the colors of a kind by `shift` and a random factor of its own."""
    base, second, vessel, share = kind
    factor = shift * rng.uniform(0.85, 1.15, 3) * rng.uniform(0.75, 1.15)

    def scale(color: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(float(c) for c in np.clip(np.array(color) * factor, 4, 252))

    return scale(base), scale(second), scale(vessel), share * float(rng.uniform(0, 1.5))
