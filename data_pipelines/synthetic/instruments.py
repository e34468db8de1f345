"""Drawing of instruments in a frame: assembly of parts, lighting and shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from data_pipelines.synthetic import sprites
from data_pipelines.synthetic.fields import Field, generator, pixel_centers, resize
from data_pipelines.synthetic.motion import SIDES, Arm, Pose, make_arm
from data_pipelines.synthetic.sprites import Sprite

SHAFT, WRIST, JAWS = 10, 20, 30
# Number of steps of a normal component in the tables of reflections.
_TONES = 128


@dataclass(frozen=True)
class Tool:
    """An instrument to put in a scene: type number 1..7 and the side it enters from."""

    kind: int
    side: str = "left"


@dataclass(frozen=True)
class Instrument:
    """An instrument of a scene.

    Attributes:
        tool: type and side.
        arm: motion of the instrument.
        parts: shaft, sleeve, wrist link and clasper; for a rigid instrument shaft, neck
            and tip.
        one_piece: whether the tip is one body instead of two mirrored claspers.
        gain: brightness relative to the tissue.
        ramp: increase of brightness along the shaft toward the lens, per frame height.
    """

    tool: Tool
    arm: Arm
    parts: tuple[Sprite, ...]
    one_piece: bool = False
    gain: float = 1.0
    ramp: float = 0.0


def make_instrument(
    seed: int, sequence: int, index: int, tools: tuple[Tool, ...], size: tuple[int, int]
) -> Instrument:
    """Draws the parts of `tools[index]` for frames of `size` and gives it an arm."""
    tool = tools[index]
    if tool.side not in SIDES:
        raise ValueError(f"side {tool.side!r}: use one of {', '.join(SIDES)}")
    aspect = size[1] / size[0]
    arm = make_arm(seed, sequence, index, tool.side, aspect, len(tools))
    density = 1.1 * arm.diameter * size[0]
    # Not keyed by the type, so that all types look the same except for the claspers.
    rng = generator(seed, sequence, 30 + index)
    parts = (
        sprites.shaft(rng, density),
        sprites.sleeve(rng, density),
        sprites.wrist(rng, density),
        sprites.jaw(rng, tool.kind, density),
    )
    return Instrument(tool, arm, parts, one_piece=tool.kind == 7)


@dataclass(frozen=True)
class Layer:
    """A single drawn instrument: premultiplied color, alpha and hard part labels."""

    color: NDArray[np.float32]
    alpha: Field
    part: NDArray[np.uint8]


def draw(
    instrument: Instrument,
    pose: Pose,
    reflections: NDArray[np.float32],
    size: tuple[int, int],
) -> Layer:
    """Draws a single instrument.

    Args:
        instrument: the instrument.
        pose: its pose.
        reflections: brightness by normal; see `reflections_of`.
        size: (height, width) of the frame.
    """
    height, width = size
    color = np.zeros((height, width, 3), np.float32)
    alpha = np.zeros((height, width), np.float32)
    part = np.zeros((height, width), np.uint8)
    layer = Layer(color, alpha, part)
    lights = reflections * np.float32(instrument.gain)
    shaft, sleeve, *wrist, jaw = instrument.parts
    unit = pose.diameter * height
    at = pose.end * height + (width / 2, height / 2)

    def forward(angle: float, length: float) -> NDArray[np.float64]:
        return at + unit * length * np.array([math.cos(angle), math.sin(angle)])

    def stamp(
        sprite: Sprite, angle: float, stretch: float, mirror: float, label: int
    ) -> None:
        _stamp(layer, lights, sprite, at, angle, unit, stretch, mirror, label)

    short = pose.foreshortening
    # A one-piece tip is stamped once. Claspers are stamped twice, mirrored about the
    # line where they close.
    halves = (1.0,) if instrument.one_piece else (-1.0, 1.0)
    opening = 0.0 if instrument.one_piece else pose.opening
    stamp(shaft, pose.axis, 1.0, 1.0, SHAFT)
    if not wrist:
        at = forward(pose.axis, 0.6)
        for mirror in halves:
            stamp(jaw, pose.axis + mirror * opening, 1.0, mirror, JAWS)
        at = forward(pose.axis, -0.6)
        stamp(sleeve, pose.axis, 1.0, 1.0, WRIST)
        return _apply_ramp(layer, pose, instrument.ramp)
    stamp(sleeve, pose.axis, 1.0, 1.0, WRIST)
    at = forward(pose.axis, 1.15)
    angle = pose.axis + pose.bends[0]
    pin = forward(angle, 0.95 * short)
    joint, at = at, pin
    for mirror in halves:
        stamp(jaw, angle + pose.bends[1] + mirror * opening, short, mirror, JAWS)
    at = joint
    stamp(wrist[0], angle, short, 1.0, WRIST)
    return _apply_ramp(layer, pose, instrument.ramp)


def _apply_ramp(layer: Layer, pose: Pose, ramp: float) -> Layer:
    """Applies a brightness ramp along the shaft; its distal end is unchanged."""
    if ramp:
        x, y = pixel_centers(layer.alpha.shape)
        dx, dy = math.cos(pose.axis), math.sin(pose.axis)
        along = (x - pose.end[0]) * dx + (y - pose.end[1]) * dy
        rise = np.exp(np.clip(-ramp * along, -0.9, 1.1)).astype(np.float32)
        np.multiply(layer.color, rise[..., None], out=layer.color)
    return layer


def _stamp(
    layer: Layer,
    reflections: NDArray[np.float32],
    sprite: Sprite,
    at: NDArray[np.float64],
    angle: float,
    unit: float,
    stretch: float,
    mirror: float,
    label: int,
) -> None:
    """Draws a sprite onto a layer.

    Args:
        layer: the layer, which is modified.
        reflections: brightness by normal; see `reflections_of`.
        sprite: the part.
        at: pixel (x, y) of its origin.
        angle: direction of its x axis.
        unit: pixels per shaft diameter.
        stretch: scale along its x axis.
        mirror: 1, or -1 to mirror it about its x axis.
        label: label of its pixels.
    """
    height, width = layer.alpha.shape
    cos, sin = math.cos(angle), math.sin(angle)
    scale = unit / sprite.density
    forward = np.array(
        [
            [scale * stretch * cos, -scale * mirror * sin],
            [scale * stretch * sin, scale * mirror * cos],
        ]
    )
    w, h = sprite.color.size
    ox, oy = sprite.origin
    corners = np.array([[-ox, w - ox, w - ox, -ox], [-oy, -oy, h - oy, h - oy]])
    reach = forward @ corners + at[:, None]
    x0, y0 = np.maximum(np.floor(reach.min(1)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(reach.max(1)).astype(int) + 1, (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    back = np.linalg.inv(forward)
    shift = back @ (np.array([x0, y0]) - at) + (ox, oy)
    affine = (*back[0], shift[0], *back[1], shift[1])
    box = np.s_[y0:y1, x0:x1]
    picture, relief = (
        np.asarray(
            image.transform(
                (int(x1 - x0), int(y1 - y0)),
                Image.Transform.AFFINE,
                tuple(float(a) for a in affine),
                resample=Image.Resampling.BILINEAR,
            )
        )
        for image in (sprite.color, sprite.relief)
    )
    # A rotated part covers little of its box, so only covered pixels are lit.
    rows, cols = np.nonzero(picture[..., 3])
    picture = picture[rows, cols].astype(np.float32) / 255
    relief = relief[rows, cols].astype(np.float32) / 255
    nx, ny = 2 * relief[:, 0] - 1, (2 * relief[:, 1] - 1) * mirror
    nx, ny = cos * nx - sin * ny, sin * nx + cos * ny
    x, y = pixel_centers(layer.alpha.shape)
    nx = nx + np.float32(0.35) * x[0, cols + x0]
    ny = ny + np.float32(0.35) * y[rows + y0, 0]
    row = np.clip((ny + 1) * (_TONES / 2), 0, _TONES - 1).astype(np.intp)
    col = np.clip((nx + 1) * (_TONES / 2), 0, _TONES - 1).astype(np.intp)
    steel, tube = (table[row, col] for table in reflections)
    metal = relief[:, 2:]
    albedo, cover = picture[:, :3], picture[:, 3:]
    lit = metal * albedo * steel + (1 - metal) * (albedo * tube + 0.16 * (tube - 0.6))
    under = layer.color[box][rows, cols]
    layer.color[box][rows, cols] = under + cover * (np.clip(lit, 0, 1.3) - under)
    cover = cover[:, 0]
    under = layer.alpha[box][rows, cols]
    under = under + cover * (1 - under)
    layer.alpha[box][rows, cols] = under
    # A pixel covered by two soft edges that add up to a solid one also needs a label.
    solid = (cover > 0.5) | ((under > 0.5) & (layer.part[box][rows, cols] == 0))
    layer.part[box][rows[solid], cols[solid]] = label


def reflections_of(
    light: tuple[float, float], tissue: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the brightness of steel and of dark tube by surface normal.

    Args:
        light: direction (x, y) of the light.
        tissue: mean color of the tissue, float32 [3], which metal reflects.

    Returns:
        float32 [2, 128, 128, 3]: material, normal y (down), normal x (right), RGB.
    """
    tilt = (np.arange(_TONES, dtype=np.float32) + 0.5) / (_TONES / 2) - 1
    nx, ny = tilt[None, :], tilt[:, None]
    r = np.hypot(nx - light[0], ny - light[1])
    side = np.clip(1 - nx * nx - ny * ny, 0, 1)
    lamp = np.exp(-((r / 0.26) ** 2))
    band = np.exp(-(((r - 0.62) / 0.13) ** 2))
    flesh = (tissue / tissue.mean()) * 0.42
    steel = (0.14 + 0.30 * side + 0.95 * lamp + 0.26 * band)[..., None] * np.ones(3)
    steel = steel + (0.35 * (1 - side))[..., None] * flesh
    tube = (0.30 + 0.62 * side + 0.55 * np.exp(-((r / 0.3) ** 2)))[..., None]
    tube = tube + (0.25 * (1 - side))[..., None] * flesh
    return np.stack([steel, tube]).astype(np.float32)


def level_of(pose: Pose, bed: Field, x: Field, y: Field) -> Field:
    """Returns the instrument's height [H, W], rising along the shaft to the lens."""
    height, width = bed.shape
    tip = pose.end + 2.5 * pose.diameter * np.array(
        [math.cos(pose.axis), math.sin(pose.axis)]
    )
    column = min(width - 1, max(0, int(tip[0] * height + width / 2)))
    row = min(height - 1, max(0, int(tip[1] * height + height / 2)))
    along = (x - np.float32(pose.end[0])) * np.float32(math.cos(pose.axis)) + (
        y - np.float32(pose.end[1])
    ) * np.float32(math.sin(pose.axis))
    # The shaft rises steeply to the lens, so tissue can hide the claspers but not it.
    slope = np.where(along > 0, np.float32(pose.dive), np.float32(0.76))
    return bed[row, column] + np.float32(pose.clearance) - slope * along


def shadow_of(alpha: Field, pose: Pose, light: tuple[float, float]) -> Field:
    """Returns the soft shadow 0..1 of an instrument, offset by its height."""
    height, width = alpha.shape
    step = max(1, height // 64)
    small = Image.fromarray((alpha * 255).astype(np.uint8)).reduce(step)
    lx, ly = light
    direction = np.array([-lx - 0.12, 0.35 - ly])
    # The offset grows with the height over the tissue, which is affine in position.
    cos, sin = math.cos(pose.axis), math.sin(pose.axis)
    unit = height / step
    center = np.array([small.width, small.height]) / 2
    end = pose.end * unit + center
    rise = max(0.0, pose.clearance) * unit
    a = np.eye(2) + 0.2 * np.outer(direction, (cos, sin))
    b = -direction * rise - 0.2 * direction * float(np.dot((cos, sin), end))
    coefficients = (*a[0], b[0], *a[1], b[1])
    cast = small.transform(
        small.size,
        Image.Transform.AFFINE,
        tuple(float(c) for c in coefficients),
        resample=Image.Resampling.BILINEAR,
    ).filter(ImageFilter.GaussianBlur(0.8 + 0.12 * rise))
    return np.clip(resize(np.asarray(cast, np.float32) / 255, height, width), 0, 1)


def drag_along(
    color: NDArray[np.float32], alpha: Field, drag: NDArray[np.float64]
) -> tuple[NDArray[np.float32], Field]:
    """Applies motion blur to a layer.

    Args:
        color: premultiplied color, [H, W, 3].
        alpha: opacity, [H, W].
        drag: motion (x, y) in pixels while the shutter is open.
    """
    length = float(np.hypot(*drag))
    if length < 1.5:
        return color, alpha
    count = min(9, math.ceil(length) + 1)
    blurred, soft = np.zeros_like(color), np.zeros_like(alpha)
    for i in range(count):
        dx, dy = np.rint(drag * (i / (count - 1) - 0.5)).astype(int)
        blurred += np.roll(color, (dy, dx), (0, 1))
        soft += np.roll(alpha, (dy, dx), (0, 1))
    return blurred / np.float32(count), soft / np.float32(count)
