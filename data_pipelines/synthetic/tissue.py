"""Tissue: organs baked once per sequence, then warped and lit for every frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipelines.synthetic.fields import Field, fractal, generator, smooth
from data_pipelines.synthetic.strands import draw_suture, draw_vessels

MARGIN = 0.4
"""Margin of the baked tissue beyond the frame on every side, in frame heights."""

Kind = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float]
"""Base color, second color mixed in by coarse noise, vessel color, share of vessels.

Values are display RGB, picked by eye to the look of abdominal endoscopy.
"""

KINDS: dict[str, Kind] = {
    "serosa": ((226, 146, 132), (206, 98, 98), (158, 28, 40), 1.0),
    "muscle": ((204, 88, 86), (172, 56, 64), (112, 18, 32), 0.8),
    "liver": ((172, 70, 72), (140, 46, 54), (172, 118, 122), 0.35),
    "fat": ((236, 178, 112), (226, 140, 92), (176, 50, 40), 0.6),
    "membrane": ((218, 156, 154), (200, 110, 118), (120, 34, 62), 0.8),
    "bowel": ((226, 152, 120), (212, 122, 100), (164, 44, 48), 0.8),
    "kidney": ((178, 84, 80), (150, 58, 66), (92, 20, 30), 0.3),
    "yellow fat": ((244, 196, 88), (228, 158, 62), (190, 80, 40), 0.3),
    "mesentery": ((228, 182, 158), (214, 130, 110), (150, 30, 40), 1.0),
    "gallbladder": ((150, 158, 128), (112, 126, 96), (120, 60, 60), 0.6),
    "ligament": ((238, 216, 206), (222, 190, 184), (190, 110, 110), 0.2),
    "gauze": ((232, 228, 222), (206, 200, 196), (200, 90, 90), 0.1),
    "deep liver": ((96, 34, 40), (64, 18, 30), (110, 60, 66), 0.3),
    "clot": ((92, 14, 18), (54, 6, 12), (60, 8, 12), 0.0),
    "char": ((92, 70, 48), (46, 34, 26), (80, 40, 30), 0.0),
}

# Composition of a sequence: the kind of the bed, then the kinds of lobes on it.
_SETTINGS = (
    ("serosa", "serosa", "muscle", "serosa", "membrane"),
    ("bowel", "bowel", "bowel", "serosa", "fat"),
    ("liver", "liver", "liver", "muscle", "membrane"),
    ("muscle", "muscle", "serosa", "muscle", "fat"),
    ("fat", "fat", "bowel", "fat", "serosa"),
    ("membrane", "serosa", "membrane", "membrane", "bowel"),
)

REGIONS = (
    "background-tissue",
    "kidney-parenchyma",
    "covered-kidney",
    "small-intestine",
    "thread",
    "suturing-needle",
)
"""Names of the values of `Tissue.regions`."""


@dataclass(frozen=True)
class Bed:
    """Composition of a scene's tissue, to override the default for its number.

    Attributes:
        kinds: colors by kind; the order defines the indices.
        setting: kinds of the lobes; the first one is the bed.
        strips: kind of each long thin fold, cord or ligament.
        lobules: kind of each cluster of small round lobes, as in fat.
        blood: strength and extent of pools of blood, 0..1.
        gloss: factor on the sheen.
        stitches: whether to add a thread and a needle.
        density: resolution relative to the frame's.
    """

    kinds: dict[str, Kind]
    setting: tuple[str, ...]
    strips: tuple[str, ...] = ()
    lobules: tuple[str, ...] = ()
    blood: float = 0.0
    gloss: float = 1.0
    stitches: bool = False
    density: float = 1.15


@dataclass(frozen=True)
class Tissue:
    """Baked tissue, `density` pixels per frame height, as Pillow images for warping.

    `surface` has the albedo and the gloss in its four channels (mode CMYK: Pillow would
    blend RGBA by its last channel); `height` is mode F (frame heights), `regions` L
    with indices into `REGIONS`. `mean` is the mean color, float32 [3] in
    0..1.
    """

    surface: Image.Image
    height: Image.Image
    regions: Image.Image
    density: float
    mean: NDArray[np.float32]


def bake(
    seed: int,
    sequence: int,
    size: tuple[int, int],
    anatomy: bool,
    bed: Bed | None = None,
) -> Tissue:
    """Bakes the tissue of one sequence.

    Args:
        seed: seed of the data set.
        sequence: sequence number.
        size: (height, width) of the frames in pixels.
        anatomy: whether to add a kidney, bowel, suture and needle, with their regions.
        bed: composition of the tissue. None: determined by the sequence number.
    """
    density = (1.15 if bed is None else bed.density) * size[0]
    extent = (1 + 2 * MARGIN, size[1] / size[0] + 2 * MARGIN)
    rng = generator(seed, sequence, 1)
    setting = _SETTINGS[(sequence * 5 + int(rng.integers(2)) * 3) % len(_SETTINGS)]
    table = KINDS
    if bed is not None:
        setting, table = bed.setting, bed.kinds
    names = list(table)
    rows, cols = (round(side * density) for side in extent)
    y, x = np.meshgrid(
        np.arange(rows, dtype=np.float32) / np.float32(density),
        np.arange(cols, dtype=np.float32) / np.float32(density),
        indexing="ij",
    )

    def noise(index: int, cell: float, octaves: int, **options: float) -> Field:
        stream = generator(seed, sequence, 2, index)
        return fractal(stream, extent, density, cell, octaves, **options)

    lobes = _lobes(rng, extent, setting, anatomy)
    if bed is not None:
        for kind in bed.lobules:
            lobes += _lobules(rng, extent, kind)
        lobes += [_strip(rng, extent, kind) for kind in bed.strips]
    warp = 0.05 * noise(0, 0.35, 4), 0.05 * noise(1, 0.35, 4)
    margin = max(float(np.abs(field).max()) for field in warp)
    height, owner = _stack(lobes, x + warp[0], y + warp[1], density, margin)
    kinds = np.array([names.index(lobe.kind) for lobe in lobes])[owner]
    blend = 0.65 if bed is None or not bed.lobules else 0.35
    height = (1 - blend) * height + blend * smooth(height, 0.03 * density)
    coarse, fine = noise(2, 0.3, 3, gain=0.42), noise(3, 0.06, 4, gain=0.45)
    crease = np.abs(noise(4, 0.3, 3, stretch=1.8))
    crease = np.exp(-((crease / 0.12) ** 2)) * (noise(5, 0.4, 2) > 0.2)
    fatty = [names.index(name) for name in ("fat", "yellow fat") if name in table]
    fat = np.isin(kinds, fatty).astype(np.float32)
    lumps = 1 - np.abs(noise(6, 0.13, 3, gain=0.4))
    height = height + 0.022 * coarse + (0.0032 + 0.001 * fat) * fine
    height = height - 0.005 * crease + fat * 0.008 * lumps

    vessels, veins = draw_vessels(generator(seed, sequence, 3), extent, density)
    mottle = noise(7, 0.16, 4)
    albedo = _color(
        kinds, list(table.values()), coarse, fine, mottle, (vessels, veins), density
    )
    albedo *= (1 - 0.16 * crease)[..., None]
    pools = rng.uniform(0.2, 0.9) if bed is None else bed.blood
    dry = 1.55 if bed is None else 1.9 - bed.blood
    blood = np.clip(noise(8, 0.3, 4) - dry, 0, 0.35) / 0.35 * pools
    albedo += blood[..., None] * (np.array([0.42, 0.03, 0.04], np.float32) - albedo)
    height = height + 0.003 * veins + 0.002 * blood
    _darken_folds(albedo, height, density)
    gloss = np.clip(0.22 + 0.5 * noise(9, 0.3, 4) + 0.5 * blood, 0.02, 1.0)
    if bed is not None:
        gloss = np.clip(gloss * bed.gloss, 0.0, 1.0)

    regions = np.array([lobe.region for lobe in lobes], np.uint8)[owner]
    if anatomy or (bed is not None and bed.stitches):
        stitch = draw_suture(generator(seed, sequence, 4), extent, density)
        for index, (cover, color) in enumerate(stitch):
            albedo += cover[..., None] * (np.array(color, np.float32) - albedo)
            height = height + 0.008 * cover
            regions[cover > 0.5] = REGIONS.index("thread") + index
    albedo *= rng.uniform(0.93, 1.07, 3)
    albedo = np.clip(albedo, 0.0, 1.0)
    channels = [*np.moveaxis(albedo, -1, 0), gloss]
    channels = [Image.fromarray((255 * c).astype(np.uint8)) for c in channels]
    return Tissue(
        surface=Image.merge("CMYK", channels),
        height=Image.fromarray(height.astype(np.float32)),
        regions=Image.fromarray(regions),
        density=density,
        mean=albedo.mean((0, 1)).astype(np.float32),
    )


def _darken_folds(albedo: Field, height: Field, density: float) -> None:
    """Darkens `albedo` [H, W, 3] in place where the surface is below its surroundings.

    Light in a fold has passed through tissue, so it is darker and redder.
    """
    for radius, strength in ((0.035, 6.0), (0.1, 3.0), (0.25, 1.6)):
        depth = np.clip(smooth(height, radius * density) - height, 0, 0.12)
        shade = np.exp(-strength * depth)[..., None]
        albedo *= shade ** np.array([0.75, 1.15, 1.1], np.float32)


@dataclass(frozen=True)
class _Lobe:
    """One organ or fold: an elliptic dome at its own level."""

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    level: float
    rise: float
    kind: str
    region: int


def _lobes(
    rng: np.random.Generator,
    extent: tuple[float, float],
    setting: tuple[str, ...],
    anatomy: bool,
) -> list[_Lobe]:
    """Draws the bed and the lobes on it, with organs if `anatomy`."""
    center = (extent[0] / 2, extent[1] / 2)
    lobes = [_Lobe(center, (9.0, 9.0), 0.0, 0.0, 0.0, setting[0], 0)]
    for _ in range(int(rng.integers(9, 14))):
        place = (rng.uniform(0, extent[0]), rng.uniform(0, extent[1]))
        radius = rng.uniform(0.22, 0.55)
        kind = setting[int(rng.integers(len(setting)))]
        radii = (radius, radius * rng.uniform(0.35, 0.9))
        level, rise = rng.uniform(-0.06, 0.04), rng.uniform(0.06, 0.16)
        angle = rng.uniform(0, math.pi)
        lobes.append(_Lobe(place, radii, angle, level, rise, kind, 0))
    if anatomy:
        for name, kind, radii, level in (
            ("covered-kidney", "fat", (0.62, 0.4), 0.1),
            ("small-intestine", "bowel", (0.6, 0.2), 0.06),
            ("kidney-parenchyma", "kidney", (0.42, 0.28), 0.16),
        ):
            offset = rng.uniform(-0.3, 0.3, 2)
            place = (center[0] + offset[0], center[1] + offset[1])
            region = REGIONS.index(name)
            angle = rng.uniform(0, math.pi)
            lobes.append(_Lobe(place, radii, angle, level, 0.12, kind, region))
    return lobes


def _strip(rng: np.random.Generator, extent: tuple[float, float], kind: str) -> _Lobe:
    """Draws a long thin fold, which can look as straight as an instrument's shaft."""
    place = (rng.uniform(0.2, 0.8) * extent[0], rng.uniform(0.2, 0.8) * extent[1])
    radii = (float(rng.uniform(0.35, 1.2)), float(rng.uniform(0.015, 0.09)))
    level, rise = rng.uniform(0.0, 0.16), rng.uniform(0.02, 0.1)
    return _Lobe(place, radii, rng.uniform(0, math.pi), level, rise, kind, 0)


def _lobules(
    rng: np.random.Generator, extent: tuple[float, float], kind: str
) -> list[_Lobe]:
    """Draws a cluster of round lobes of one kind."""
    center = rng.uniform(0.2, 0.8, 2) * extent
    spread, size = rng.uniform(0.1, 0.4), rng.uniform(0.025, 0.09)
    lobes = []
    for _ in range(int(rng.integers(15, 60))):
        place = center + spread * rng.standard_normal(2)
        radius = size * math.exp(rng.uniform(-0.5, 0.5))
        radii = (float(radius), float(radius * rng.uniform(0.6, 1.0)))
        level, rise = rng.uniform(0.02, 0.1), radius * rng.uniform(0.5, 1.0)
        angle = rng.uniform(0, math.pi)
        at = (float(place[0]), float(place[1]))
        lobes.append(_Lobe(at, radii, angle, level, rise, kind, 0))
    return lobes


def _stack(
    lobes: list[_Lobe], x: Field, y: Field, density: float, margin: float
) -> tuple[Field, NDArray[np.uint16]]:
    """Returns the height of the upper envelope of all lobes, and the topmost lobe.

    Args:
        lobes: the lobes.
        x: horizontal position of each pixel, [H, W].
        y: vertical position of each pixel, [H, W].
        density: pixels per frame height.
        margin: distance up to which x and y differ from those of a regular grid.
    """
    height = np.full(x.shape, -9.0, np.float32)
    owner = np.zeros(x.shape, np.uint16)
    for index, lobe in enumerate(lobes):
        reach = max(lobe.radii) + margin
        row, column = (
            slice(
                max(0, math.floor((middle - reach) * density)),
                max(0, math.ceil((middle + reach) * density) + 1),
            )
            for middle in lobe.center
        )
        cos, sin = math.cos(lobe.angle), math.sin(lobe.angle)
        dx = x[row, column] - np.float32(lobe.center[1])
        dy = y[row, column] - np.float32(lobe.center[0])
        u = (cos * dx + sin * dy) / lobe.radii[0]
        v = (cos * dy - sin * dx) / lobe.radii[1]
        inside = np.maximum(1 - u * u - v * v, 0)
        dome = lobe.level + lobe.rise * (0.6 * np.sqrt(inside) + 0.4 * inside)
        below = height[row, column]
        above = (dome > below) & (inside > 0)
        below[above] = dome[above]
        owner[row, column][above] = index
    return height, owner


def _color(
    kinds: NDArray[np.integer],
    rows: Sequence[Kind],
    coarse: Field,
    fine: Field,
    mottle: Field,
    cover: tuple[Field, Field],
    density: float,
) -> NDArray[np.float32]:
    """Colors the tissue, float32 [H, W, 3] in 0..1.

    Args:
        kinds: [H, W], index of the kind of tissue.
        rows: the kinds.
        coarse: coarse noise [H, W], which mixes the two colors of a kind.
        fine: fine noise [H, W], which changes the brightness.
        mottle: medium noise [H, W], which does both.
        cover: cover 0..1 of fine vessels and of veins, each [H, W].
        density: pixels per frame height.
    """
    # Neighboring organs share fascia, so their colors blend at the boundary: averages
    # over blocks of pixels are interpolated.
    height, width = kinds.shape
    step = max(1.0, 0.012 * density)
    blocks = max(2, round(width / step)), max(2, round(height / step))

    def blended(column: int) -> Field:
        values = np.clip([row[column] for row in rows], 0, 255).astype(np.uint8)
        picture = Image.fromarray(values[kinds])
        coarse = picture.resize(blocks, Image.Resampling.BILINEAR)
        picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(picture, np.float32) / 255

    base, second, vessel = (blended(column) for column in range(3))
    share = np.array([row[3] for row in rows], np.float32)
    share = smooth(share[kinds], 0.012 * density)
    vessels, veins = cover
    blend = np.clip(0.4 + 0.3 * coarse + 0.28 * mottle, 0, 1)[..., None]
    color = base + blend * (second - base)
    color = color * (1 + 0.035 * fine + 0.03 * mottle)[..., None]
    stain = np.clip(share * (1.15 * vessels + 0.7 * veins), 0, 0.85)[..., None]
    return (color + stain * (vessel - color)).astype(np.float32)
