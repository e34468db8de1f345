"""Renders a synthetic endoscopy frame, a pure function of (scene, frame number)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_pipelines.synthetic.fields import (
    Field,
    generator,
    pixel_centers,
    resize,
    smooth,
)
from data_pipelines.synthetic.instruments import (
    Instrument,
    Tool,
    drag_along,
    draw,
    level_of,
    make_instrument,
    reflections_of,
    shadow_of,
)
from data_pipelines.synthetic.look import Look, develop, to_image
from data_pipelines.synthetic.motion import Camera, View, make_camera, pose, view
from data_pipelines.synthetic.tissue import MARGIN, Tissue, bake

_GRID = 7
# Exposure time in seconds, independent of the frame rate.
_SHUTTER = 1 / 60


@dataclass(frozen=True)
class Scene:
    """Everything that is constant over the frames of a sequence. See `make_scene`."""

    seed: int
    sequence: int
    size: tuple[int, int]
    rate: float
    tissue: Tissue
    camera: Camera
    instruments: tuple[Instrument, ...]
    reflections: NDArray[np.float32]
    """Brightness of steel and of tube by normal, [2, 128, 128, 3]."""
    look: Look | None = None
    """Look of the recording. None: a clean camera."""
    wet: float = 1.0
    """Factor on the highlights of wet tissue."""


@dataclass(frozen=True)
class Frame:
    """A rendered frame and its exact labels.

    Attributes:
        rgb: uint8 [H, W, 3].
        parts: uint8 [instruments, H, W], the visible part of each instrument in the
            scene's order: 0 none, 10 shaft, 20 wrist, 30 claspers. A pixel belongs to
            at most one instrument.
        regions: uint8 [H, W], the tissue below all instruments, indices into
            `tissue.REGIONS`.
    """

    rgb: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    regions: NDArray[np.uint8]


def check_scene(seed: int, sequence: int, size: tuple[int, int], rate: float) -> None:
    """Raises ValueError if a parameter of a scene is out of range."""
    height, width = size
    if min(size) < 32 or not 0.5 <= width / height <= 2:
        raise ValueError(
            f"size {height}x{width}: use at least 32 pixels per side and an aspect "
            "ratio between 1:2 and 2:1"
        )
    if not 0 < rate < math.inf:
        raise ValueError(f"rate {rate}: use a positive number of frames per second")
    if not (0 <= seed < 2**64 and 0 <= sequence < 2**64):
        raise ValueError(f"seed {seed}, sequence {sequence}: use 0 to 2**64 - 1")


def make_scene(
    seed: int,
    sequence: int,
    tools: tuple[Tool, ...],
    size: tuple[int, int] = (256, 320),
    rate: float = 2.0,
    anatomy: bool = False,
) -> Scene:
    """Prepares a sequence: bakes the tissue and draws the instruments.

    Args:
        seed: seed of the data set, 0 <= seed < 2**64.
        sequence: sequence number; each number has different tissue.
        tools: the instruments, which enter and leave the view independently.
        size: (height, width) of the frames in pixels, at least 32 each.
        rate: frames per second of scene time.
        anatomy: whether to add a kidney, bowel, a thread and a needle.

    Raises:
        ValueError: a size, rate, type or side is invalid.
    """
    check_scene(seed, sequence, size, rate)
    instruments = tuple(
        make_instrument(seed, sequence, index, tools, size)
        for index in range(len(tools))
    )
    tissue = bake(seed, sequence, size, anatomy)
    camera = make_camera(seed, sequence)
    reflections = reflections_of(camera.light, tissue.mean)
    return Scene(
        seed,
        sequence,
        size,
        rate,
        tissue,
        camera,
        instruments,
        reflections,
    )


def render_frame(scene: Scene, frame: int) -> Frame:
    """Renders frame number `frame` >= 0, independently of other frames."""
    if frame < 0:
        raise ValueError(f"frame {frame}: frames are counted from 0")
    seconds = frame / scene.rate
    height, width = scene.size
    albedo, ground, gloss, regions = _warp(scene, view(scene.camera, seconds))
    x, y = pixel_centers(scene.size)
    layers = []
    for index, instrument in enumerate(scene.instruments):
        pose_ = pose(instrument.arm, seconds)
        layer = draw(instrument, pose_, scene.reflections, scene.size)
        if layer.alpha.any():
            before = pose(instrument.arm, seconds - _SHUTTER).end
            layers.append((index, pose_, layer, (pose_.end - before) * height))
    bed = smooth(ground, height / 6)
    levels = [level_of(pose_, bed, x, y) for _, pose_, _, _ in layers]
    shade = np.ones(scene.size, np.float32)
    for (_, pose_, layer, _), level in zip(layers, levels, strict=True):
        shade *= 1 - 0.5 * shadow_of(layer.alpha, pose_, scene.camera.light)
        # Tissue is darker where an instrument presses into it.
        gap = (level - ground) * np.float32(30.0)
        shade *= 1 - 0.55 * smooth(layer.alpha, height / 32) * np.exp(-gap * gap)
    rgb = _light(scene, albedo, ground, gloss, shade, x, y)

    depth = ground.copy()
    parts = np.zeros((len(scene.instruments), height, width), np.uint8)
    for (index, _, layer, drag), level in zip(layers, levels, strict=True):
        color, alpha = drag_along(layer.color, layer.alpha, drag)
        box = _bounds(alpha)
        front = np.clip((level[box] - depth[box]) / np.float32(0.012) + 0.5, 0, 1)
        below = rgb[:, *box]
        below *= 1 - alpha[box] * front
        below += color[box].transpose(2, 0, 1) * front
        visible = layer.alpha[box] * front > 0.5
        depth[box][visible] = level[box][visible]
        parts[:, *box][:, visible] = 0
        parts[index][box][visible] = layer.part[box][visible]
    rgb, visible = _expose(scene, rgb, frame, x, y)
    if visible is not None:
        parts = parts * visible
    return Frame(rgb, parts, regions)


def endless(
    seed: int, size: tuple[int, int] = (256, 320), rate: float = 25.0
) -> Iterator[NDArray[np.uint8]]:
    """Yields frames uint8 [H, W, 3] of one scene, endlessly and without files."""
    rng = generator(seed, 0, 0)
    kinds = 1 + rng.permutation(6)[:3]
    sides = ("left", "right", "bottom")
    tools = tuple(Tool(int(k), side) for k, side in zip(kinds, sides, strict=True))
    scene = make_scene(seed, 0, tools, size, rate)
    frame = 0
    while True:
        yield render_frame(scene, frame).rgb
        frame += 1


def _bounds(alpha: Field) -> tuple[slice, slice]:
    """Returns the bounding box of a layer, which must not be empty."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _warp(scene: Scene, view_: View) -> tuple[Field, Field, Field, NDArray[np.uint8]]:
    """Samples the tissue in view: albedo [3, H, W], height, gloss (0..1), regions."""
    height, width = scene.size
    aspect = width / height
    gx, gy = np.meshgrid(
        np.linspace(-aspect / 2, aspect / 2, _GRID), np.linspace(-0.5, 0.5, _GRID)
    )
    cos, sin = math.cos(view_.turn), math.sin(view_.turn)
    bulge = [resize(view_.bulge[..., i], _GRID, _GRID) for i in range(2)]
    u = view_.zoom * (cos * gx - sin * gy) + view_.shift[0] + bulge[0]
    v = view_.zoom * (sin * gx + cos * gy) + view_.shift[1] + bulge[1]
    u = (u + aspect / 2 + MARGIN) * scene.tissue.density
    v = (v + 0.5 + MARGIN) * scene.tissue.density
    columns = [round(width * i / (_GRID - 1)) for i in range(_GRID)]
    rows = [round(height * i / (_GRID - 1)) for i in range(_GRID)]
    mesh = []
    for i in range(_GRID - 1):
        for j in range(_GRID - 1):
            corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
            quad = [float(c) for r, k in corners for c in (u[r, k], v[r, k])]
            box = (columns[j], rows[i], columns[j + 1], rows[i + 1])
            mesh.append((box, tuple(quad)))

    def sample(image: Image.Image, resample: Image.Resampling) -> NDArray:
        out = image.transform(
            (width, height), Image.Transform.MESH, mesh, resample=resample
        )
        return np.asarray(out)

    bilinear = Image.Resampling.BILINEAR
    surface = sample(scene.tissue.surface, bilinear).transpose(2, 0, 1)
    surface = surface.astype(np.float32, order="C") / 255
    return (
        surface[:3],
        # Bilinear sampling keeps slopes exact; cubic sampling would add ripples.
        sample(scene.tissue.height, bilinear),
        surface[3],
        sample(scene.tissue.regions, Image.Resampling.NEAREST),
    )


def _light(
    scene: Scene,
    albedo: Field,
    ground: Field,
    gloss: Field,
    shade: Field,
    x: Field,
    y: Field,
) -> Field:
    """Lights the tissue from the endoscope: diffuse light, sheen and highlights.

    Colors are [3, H, W] until the image is complete: NumPy is slow on short last axes.
    """
    height = scene.size[0]
    gy, gx = np.gradient(ground, np.float32(1 / height))
    lx, ly = scene.camera.light
    # The lamp is at the lens, so the half vector points outwards over the frame.
    hx, hy = gx + (0.55 * x - lx), gy + (0.55 * y - ly)
    lean = hx * hx + hy * hy
    slope = np.sqrt(1 + gx * gx + gy * gy)
    diffuse = np.clip((1 - lx * gx - ly * gy) / slope, 0.3, 1.4)
    fall = 1.25 / (1 + 0.9 * ((x - 0.6 * lx) ** 2 + (y - 0.6 * ly) ** 2))
    lamp = fall * (0.82 + 1.2 * np.clip(ground, -0.1, 0.3)) * diffuse * shade
    gloss = np.float32(scene.wet) * gloss
    sheen = 0.09 * gloss * np.exp(-lean * np.float32(7.0))
    glint = np.clip(2.4 * gloss - 0.3, 0, 1.6) * np.exp(-lean * np.float32(140.0))
    wet = (sheen + glint) * fall * shade
    rgb = np.empty_like(albedo)
    for channel, (power, gain) in enumerate(((0.85, 0.98), (1.08, 0.98), (1.05, 1.0))):
        rgb[channel] = albedo[channel] * lamp**power + np.float32(gain) * wet
    return rgb


def _expose(
    scene: Scene, rgb: Field, frame: int, x: Field, y: Field
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Adds smoke, bloom, vignette, blur, and the look or sensor noise.

    Args:
        scene: the scene.
        rgb: light, float [3, H, W].
        frame: frame number.
        x: pixel centers [1, W].
        y: pixel centers [H, 1].

    Returns:
        The image uint8 [H, W, 3], and bool [H, W], where the scene is visible; None if
        it is visible everywhere.
    """
    height, width = scene.size
    camera, seconds = scene.camera, frame / scene.rate
    bright = np.clip(rgb.max(0) - np.float32(0.9), 0, 1)
    rgb = rgb + np.float32(0.35) * smooth(bright, height / 28)
    smoke = camera.smoke.at(seconds)
    if smoke > 0:
        fog = _fog(scene, seconds)
        gray = np.array([0.74, 0.71, 0.72], np.float32)[:, None, None]
        rgb += np.float32(0.55 * smoke) * fog * (gray - rgb)
    rgb *= 1.06 - 0.55 * (x * x + y * y)
    look, visible = scene.look, None
    if look is not None:
        key = (scene.seed, scene.sequence)
        picture, visible = develop(look, rgb, key, frame, seconds)
        image = Image.fromarray(picture)
    else:
        image = to_image(np.clip(rgb, 0, 1) * 255)
    jerk, defocus = camera.jerk.at(seconds), camera.defocus.at(seconds)
    if jerk > 0:
        angle = 2 * math.pi * float(camera.wind.at(seconds)[0])
        image = _streak(image, 0.035 * jerk * height, angle)
    if defocus > 0:
        image = image.filter(ImageFilter.GaussianBlur(0.008 * defocus * height))
    if look is not None:
        return np.asarray(image), visible
    rng = generator(scene.seed, scene.sequence, 6, frame)
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(1.9)
    noisy = np.asarray(image, np.float32) + grain[..., None]
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8), None


def _fog(scene: Scene, seconds: float) -> Field:
    """Returns the density of drifting smoke, 0..1."""
    rng = generator(scene.seed, scene.sequence, 7)
    clouds = rng.uniform(0, 1, (2, 24, 24))
    height, width = scene.size
    total = np.zeros(scene.size, np.float32)
    wind = scene.camera.wind.at(seconds)
    for i, cells in enumerate((4.0, 8.0)):
        left = 7.0 + 2.5 * float(wind[2 * i])
        top = 7.0 + 2.5 * float(wind[2 * i + 1])
        box = (left, top, left + cells, top + cells * height / width)
        total += resize(clouds[i], height, width, box)
    return np.clip(0.62 * total, 0, 1)


def _streak(image: Image.Image, length: float, angle: float) -> Image.Image:
    """Applies motion blur over `length` pixels to an image."""
    count = min(12, math.ceil(length) + 1)
    dx, dy = length * math.cos(angle), length * math.sin(angle)
    total = np.zeros((image.height, image.width, 3), np.float32)
    for i in range(count):
        share = i / max(1, count - 1) - 0.5
        rx, ry = round(share * dx), round(share * dy)
        total += np.roll(np.asarray(image), (ry, rx), (0, 1))
    return Image.fromarray((total / count).astype(np.uint8))
