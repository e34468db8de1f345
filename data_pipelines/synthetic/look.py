"""Simulation of the camera: light, color, haze, optics, sensor and recorder.

A `Look` is constant for a video, except for drifting haze and the noise of each frame.
It is applied to the rendered image, so labels change only where the scene is not
visible: outside a round view, on a border or under an overlay.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data_pipelines.synthetic.fields import Field, generator, pixel_centers, resize


@dataclass(frozen=True)
class Look:
    """Parameters of everything between a lit scene and a recorded image.

    Attributes:
        balance: gain of red, green and blue.
        exposure: factor on the light.
        gamma: exponent on levels 0..1.
        contrast: contrast about mid gray.
        saturation: color saturation; 1 does not change colors.
        dark: strength of the shadows, 0..1; `depth` determines where they are.
        depth: [n, n], coarse noise.
        fall: falloff of the light from `center`.
        center: (x, y) of the light, frame heights.
        haze: (minimum, maximum) cover of smoke, 0..1, over time.
        haze_color: RGB in 0..1.
        speed: speed of the haze, cells per second.
        view: radius of the round view in frame heights; 0 for a full image.
        view_at: center (x, y) of the round view.
        border: rows at top and bottom, columns at left and right, as shares of the
            height.
        text: overlays (text, x, y, height), as shares of the frame.
        sharpen: strength of an unsharp mask, 0..2.
        blur: radius of a blur, frame heights.
        noise: standard deviation in levels, partly in color.
        quality: quality of JPEG compression; 0 for none.
        interlaced: offset in pixels of odd rows relative to even rows.
    """

    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exposure: float = 1.0
    gamma: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    dark: float = 0.0
    depth: NDArray[np.float32] | None = None
    fall: float = 0.0
    center: tuple[float, float] = (0.0, 0.0)
    haze: tuple[float, float] = (0.0, 0.0)
    haze_color: tuple[float, float, float] = (0.74, 0.71, 0.72)
    speed: float = 0.5
    view: float = 0.0
    view_at: tuple[float, float] = (0.0, 0.0)
    border: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    text: tuple[tuple[str, float, float, float], ...] = ()
    sharpen: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    quality: int = 0
    interlaced: int = 0


def random_look(rng: np.random.Generator) -> Look:
    """Draws the look of a video, from a clean new camera to a poor recording."""
    some = rng.uniform
    warm = some(-1, 1)
    balance = (1 + 0.16 * warm, 1 + 0.06 * some(-1, 1), 1 - 0.2 * warm)
    hazy, view = some() < 0.3, 0.0
    if some() < 0.3:
        view = float(some(0.48, 0.78))
    low = float(some(0, 0.5)) if hazy else 0.0
    haze_color = some(0.55, 0.85) * (1 + 0.12 * some(-1, 1, 3))
    border = np.where(rng.uniform(size=4) < 0.15, some(0, 0.08, 4), 0.0)
    text = ()
    if some() < 0.12:
        text = tuple(_overlay(rng) for _ in range(int(rng.integers(1, 4))))
    return Look(
        balance=(float(balance[0]), float(balance[1]), float(balance[2])),
        exposure=float(np.exp(some(-0.5, 0.4))),
        gamma=float(np.exp(some(-0.35, 0.35))),
        contrast=float(some(0.8, 1.3)),
        saturation=float(some(0.45, 1.45)),
        dark=float(max(0.0, some(-0.4, 0.9))),
        depth=rng.uniform(0, 1, (6, 6)).astype(np.float32),
        fall=float(some(0, 2.2)),
        center=(float(some(-0.25, 0.25)), float(some(-0.2, 0.2))),
        haze=(low, min(0.85, low + float(some(0, 0.45)))) if hazy else (0.0, 0.0),
        haze_color=(float(haze_color[0]), float(haze_color[1]), float(haze_color[2])),
        speed=float(some(0.1, 1.5)),
        view=view,
        view_at=(float(some(-0.06, 0.06)), float(some(-0.06, 0.06))),
        border=(
            float(border[0]),
            float(border[1]),
            float(border[2]),
            float(border[3]),
        ),
        text=text,
        sharpen=float(max(0.0, some(-1.0, 1.8))),
        blur=float(max(0.0, some(-0.012, 0.007))),
        noise=float(max(0.0, some(-2.0, 7.0))),
        quality=int(rng.integers(25, 96)) if some() < 0.6 else 0,
        interlaced=int(rng.integers(1, 4)) if some() < 0.08 else 0,
    )


def develop(
    look: Look, rgb: Field, key: tuple[int, int], frame: int, seconds: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Simulates the recorded image of a lit scene.

    Args:
        look: look of the video.
        rgb: float32 [3, H, W], light at the lens, about 0..1.
        key: (seed, sequence), for noise.
        frame: frame number, for noise.
        seconds: time of the frame, for haze.

    Returns:
        The image uint8 [H, W, 3], and bool [H, W], where the scene is visible.
    """
    height, width = rgb.shape[1:]
    x, y = pixel_centers((height, width))
    far = (x - np.float32(look.center[0])) ** 2 + (y - np.float32(look.center[1])) ** 2
    lamp = np.float32(look.exposure) / (1 + np.float32(look.fall) * far)
    if look.dark > 0 and look.depth is not None:
        deep = resize(look.depth, height, width)
        lamp = lamp * (1 - np.float32(look.dark) * np.clip(1.6 * deep - 0.5, 0, 1))
    rgb = rgb * lamp
    if look.haze[1] > 0:
        cover = _haze(look, key, (height, width), seconds)
        rgb += cover * (np.array(look.haze_color, np.float32)[:, None, None] - rgb)
    gray = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]
    rgb = gray + np.float32(look.saturation) * (rgb - gray)
    rgb *= np.array(look.balance, np.float32)[:, None, None]
    rgb = np.clip(rgb, 0, 1, out=rgb) ** np.float32(look.gamma)
    rgb = np.float32(0.45) + np.float32(look.contrast) * (rgb - np.float32(0.45))
    image = to_image(255 * np.clip(rgb, 0, 1, out=rgb))
    if look.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(look.blur * height))
    if look.sharpen > 0:
        radius = max(0.6, height / 320)
        image = image.filter(
            ImageFilter.UnsharpMask(radius, round(100 * look.sharpen), 0)
        )
    visible = _window(look, x, y)
    picture = np.asarray(image)
    if look.noise > 0:
        picture = _add_noise(picture, look.noise, generator(*key, 6, frame))
    picture = np.where(visible[..., None], picture, np.uint8(4))
    if look.interlaced:
        picture[1::2] = np.roll(picture[1::2], look.interlaced, 1)
    for text, left, top, tall in look.text:
        picture, covered = _add_text(picture, text, left, top, tall)
        visible = visible & ~covered
    if look.quality:
        picture = _compress(picture, look.quality)
    return np.ascontiguousarray(picture), visible


def to_image(rgb: NDArray[Any]) -> Image.Image:
    """Converts levels [3, H, W] in 0..255 to an image."""
    return Image.merge("RGB", [Image.fromarray(c.astype(np.uint8)) for c in rgb])


def _haze(
    look: Look, key: tuple[int, int], size: tuple[int, int], seconds: float
) -> Field:
    """Returns the cover of drifting smoke, 0..1."""
    rng = generator(*key, 8)
    clouds, way = rng.uniform(0, 1, (2, 24, 24)), rng.uniform(0, 2 * math.pi)
    total = np.zeros(size, np.float32)
    low, high = look.haze
    for i, cells in enumerate((3.0, 7.0)):
        # The pattern moves back and forth and stays within the lattice.
        swing = 6 * math.sin(look.speed * seconds / 6 + i)
        left = 8.0 + swing * math.cos(way + i)
        top = 8.0 + swing * math.sin(way + i)
        box = (left, top, left + cells, top + cells * size[0] / size[1])
        total += resize(clouds[i], *size, box)
    return (low + (high - low) * np.clip(0.5 * total, 0, 1)).astype(np.float32)


def _window(look: Look, x: Field, y: Field) -> NDArray[np.bool_]:
    """Returns where the scene is visible: inside the round view and the border."""
    height, width = y.shape[0], x.shape[1]
    visible = np.ones((height, width), bool)
    if look.view > 0:
        cx, cy = look.view_at
        visible = (x - cx) ** 2 + (y - cy) ** 2 < look.view**2
    top, bottom, left, right = (round(share * height) for share in look.border)
    visible[:top], visible[height - bottom :] = False, False
    visible[:, :left], visible[:, width - right :] = False, False
    return visible


def _add_noise(
    picture: NDArray[np.uint8], deviation: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Adds noise, coarser in color than in brightness, as in a real sensor."""
    height, width = picture.shape[:2]
    fine = np.float32(0.8 * deviation) * _normal(rng, (height, width)) + np.float32(0.5)
    half = (3, -(-height // 2), -(-width // 2))
    coarse = np.float32(0.5 * deviation) * _normal(rng, half)
    channels = []
    for channel in range(3):
        noise = coarse[channel].repeat(2, 0).repeat(2, 1)[:height, :width] + fine
        noisy = np.clip(picture[..., channel] + noise, 0, 255)
        channels.append(Image.fromarray(noisy.astype(np.uint8)))
    return np.asarray(Image.merge("RGB", channels))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    """Draws about normal values of unit deviation: sums of four bytes.

    A tenth of the time of `standard_normal`, and as good for the noise of a sensor.
    """
    count = math.prod(shape)
    drawn = np.frombuffer(rng.bytes(4 * count), np.uint8).reshape(4, *shape)
    total = drawn.sum(0, dtype=np.uint16).astype(np.float32)
    return (total - np.float32(510)) / np.float32(math.sqrt((256**2 - 1) / 3))


def _add_text(
    picture: NDArray[np.uint8], text: str, left: float, top: float, tall: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draws a line of text; returns the image and the mask of the text."""
    height, width = picture.shape[:2]
    layer = Image.new("L", (width, height))
    font = ImageFont.load_default(size=max(7.0, tall * height))
    ImageDraw.Draw(layer).text((left * width, top * height), text, 255, font)
    cover = np.asarray(layer)
    share = cover[..., None].astype(np.float32) / 255
    result = picture + share * (np.float32(235) - picture)
    return result.astype(np.uint8), cover > 127


def _compress(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compresses and decompresses an image as JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _overlay(rng: np.random.Generator) -> tuple[str, float, float, float]:
    """Draws a random overlay text near an edge: a time, a date or a setting."""
    hour, minute, second = (int(rng.integers(n)) for n in (24, 60, 60))
    text = (
        f"{hour:02d}:{minute:02d}:{second:02d}",
        f"{int(rng.integers(1, 29)):02d}.{int(rng.integers(1, 13)):02d}.2019",
        f"ZOOM {rng.uniform(1, 4):.1f}x",
        "REC",
        f"L{int(rng.integers(1, 9))}  {int(rng.integers(100))}%",
    )[int(rng.integers(5))]
    top = float(rng.choice((0.02, 0.92)))
    return text, float(rng.uniform(0.02, 0.75)), top, float(rng.uniform(0.035, 0.06))
