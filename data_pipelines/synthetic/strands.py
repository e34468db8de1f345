"""Lines drawn on tissue: vessels, a thread and a needle."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.synthetic.fields import Field, smooth


def draw_vessels(
    rng: np.random.Generator, extent: tuple[float, float], density: float
) -> tuple[Field, Field]:
    """Draws fine branching vessels and a few broad veins.

    Args:
        rng: the generator.
        extent: (height, width) in frame heights.
        density: pixels per frame height.

    Returns:
        (vessels, veins): their cover 0..1, each float32 [H, W].
    """
    # Drawn at twice the density and averaged, for soft edges.
    scale = 2 * density
    size = (2 * round(extent[1] * density), 2 * round(extent[0] * density))
    fine, broad = Image.new("L", size), Image.new("L", size)
    draw_fine, draw_broad = ImageDraw.Draw(fine), ImageDraw.Draw(broad)

    def grow(x: float, y: float, angle: float, width: float, length: float) -> None:
        draw = draw_broad if width > 0.007 else draw_fine
        step, turn = 0.016, 0.0
        line, style = [(x * scale, y * scale)], (0, 0)
        for _ in range(int(length / step)):
            turn = 0.75 * turn + rng.normal(0, 0.075)
            angle += turn
            # Drawn in pieces of one width and tone, since each call takes time.
            pixels = width * scale
            value = 8 * round(29 * min(1.0, 0.5 + 0.25 * pixels))
            piece = value, max(1, round(pixels))
            if piece != style:
                draw.line(line, *style)
                line, style = line[-1:], piece
            x, y = x + step * math.cos(angle), y + step * math.sin(angle)
            line.append((x * scale, y * scale))
            if width > 0.0013 and rng.uniform() < 0.16:
                side = rng.choice((-1.0, 1.0)) * rng.uniform(0.3, 0.8)
                grow(x, y, angle + side, 0.6 * width, 0.6 * length)
            width *= 0.985
        draw.line(line, *style)

    for _ in range(round(9 * extent[0] * extent[1])):
        start = rng.uniform(0, extent[1]), rng.uniform(0, extent[0])
        angle, width = rng.uniform(0, 2 * math.pi), rng.uniform(0.0028, 0.006)
        grow(*start, angle, width, rng.uniform(0.2, 0.6))
    for _ in range(2):
        start = rng.uniform(0, extent[1]), rng.uniform(0, extent[0])
        angle, width = rng.uniform(0, 2 * math.pi), rng.uniform(0.009, 0.014)
        grow(*start, angle, width, rng.uniform(0.5, 1.0))

    def field(image: Image.Image) -> Field:
        return np.asarray(image.reduce(2), np.float32) / 255

    return field(fine), smooth(field(broad), 0.006 * density)


def draw_suture(
    rng: np.random.Generator, extent: tuple[float, float], density: float
) -> list[tuple[Field, tuple[float, float, float]]]:
    """Draws a violet thread and the curved needle at its end.

    Args:
        rng: the generator.
        extent: (height, width) in frame heights.
        density: pixels per frame height.

    Returns:
        (cover, color) of the thread and of the needle: float32 [H, W], and RGB in 0..1.
    """
    scale = 2 * density
    size = (2 * round(extent[1] * density), 2 * round(extent[0] * density))
    width = max(2, round(0.009 * scale))
    layers = []
    at = np.array([extent[1] / 2, extent[0] / 2]) + rng.uniform(-0.25, 0.25, 2)
    angle = rng.uniform(0, 2 * math.pi)
    thread = Image.new("L", size)
    points, turn, here = [], 0.0, at.copy()
    for _ in range(90):
        points.append((here[0] * scale, here[1] * scale))
        turn = 0.9 * turn + rng.normal(0, 0.05)
        angle += turn
        here = here + 0.012 * np.array([math.cos(angle), math.sin(angle)])
    ImageDraw.Draw(thread).line(points, fill=255, width=width, joint="curve")
    layers.append((thread, (0.34, 0.22, 0.55)))
    needle = Image.new("L", size)
    radius, begin = 0.07, rng.uniform(0, 360)
    head = math.radians(begin)
    middle = at - radius * np.array([math.cos(head), math.sin(head)])
    box = [*((middle - radius) * scale), *((middle + radius) * scale)]
    ImageDraw.Draw(needle).arc(box, begin, begin + 175, fill=255, width=width)
    layers.append((needle, (0.72, 0.73, 0.76)))
    return [
        (np.asarray(image.reduce(2), np.float32) / 255, color)
        for image, color in layers
    ]
