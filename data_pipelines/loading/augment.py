"""Random changes of a training clip: one draw for all its frames and its label.

The paper (section 3) flips both ways and scales by 0.9 to 1.1. A clip is one piece of
video, so every frame gets the same flips, scale and place, and motion stays motion.
Photometric change is off by default, as in the paper; it is there for small training
sets, where a network would otherwise learn one clip's tissue colour.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Augment:
    """What may be changed, and how far.

    Attributes:
        flip_horizontal: mirror left and right for half of the clips.
        flip_vertical: mirror top and bottom for half of the clips.
        scale: least and greatest scale, drawn uniformly; the centre of scaling is drawn
            uniformly over the frame. Below 1 the border is filled by reflection, in
            images and label alike.
        photometric: strength in 0..1 of changes of brightness, contrast, gamma, channel
            gains, saturation and channel mixing; above 0.5 some clips are also blurred
            or noisy. 0 changes no colour.
    """

    flip_horizontal: bool = True
    flip_vertical: bool = True
    scale: tuple[float, float] = (0.9, 1.1)
    photometric: float = 0.0

    def __post_init__(self):
        if not 0.5 < self.scale[0] <= self.scale[1] < 10:
            raise ValueError(
                f"scale={self.scale}: give (least, greatest), above 0.5 and below 10"
            )
        if not 0 <= self.photometric <= 1:
            raise ValueError(f"photometric={self.photometric}: must be within 0..1")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> "Transform":
        """Draws the changes of one clip with frames of `size` (H, W)."""
        flips, (scale, y, x) = rng.random(2) < 0.5, rng.random(3)
        low, high = self.scale
        return Transform(
            flip_horizontal=self.flip_horizontal and bool(flips[0]),
            flip_vertical=self.flip_vertical and bool(flips[1]),
            scale=low + (high - low) * scale,
            centre=(y, x),
            color=draw_color(rng, size, self.photometric) if self.photometric else None,
        )

    def __call__(
        self, rng: np.random.Generator, frames: np.ndarray, label: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes a clip, as a pure function of the generator's state.

        Args:
            rng: for instance `Generator(Philox(key=[seed, sample]))`.
            frames: uint8 `[T, H, W, 3]`.
            label: uint8 `[H, W]`.

        Returns:
            New arrays of the same shapes and dtypes.
        """
        drawn = self.draw(rng, label.shape)
        changed = [drawn.image(frame, number) for number, frame in enumerate(frames)]
        return np.stack(changed), drawn.label(label)


@dataclass(frozen=True)
class ColorTransform:
    """The photometric changes of one clip.

    Attributes:
        matrix: float `[3, 3]`, new RGB from old; rows sum to 1, so grey stays grey.
        curves: 768 values, the new level for each old one, for R, then G, then B.
        blur: radius of a box blur, pixels.
        noise: int16 `[H, W, 3]` added to the image, moved along from frame to frame.
    """

    matrix: np.ndarray
    curves: tuple[int, ...]
    blur: float
    noise: np.ndarray | None

    def image(self, picture: Image.Image, number: int) -> np.ndarray:
        """The changed picture, uint8 `[H, W, 3]`; `number` places the noise."""
        rows = np.pad(self.matrix, ((0, 0), (0, 1)))
        picture = picture.convert("RGB", tuple(rows.ravel().tolist()))
        picture = picture.point(self.curves)
        if self.blur > 0:
            picture = picture.filter(ImageFilter.BoxBlur(self.blur))
        if self.noise is None:
            return np.array(picture)
        # Steps that share no small factor with usual sizes keep frames' noise apart.
        moved = np.roll(self.noise, (37 * number, 53 * number), (0, 1))
        moved += np.asarray(picture)
        return np.clip(moved, 0, 255, out=moved).astype(np.uint8)


@dataclass(frozen=True)
class Transform:
    """The changes drawn for one clip.

    Attributes:
        flip_horizontal: mirror left and right.
        flip_vertical: mirror top and bottom.
        scale: enlargement.
        centre: the point that scaling leaves in place, (y, x) as shares of the frame.
        color: the photometric changes, if any.
    """

    flip_horizontal: bool
    flip_vertical: bool
    scale: float
    centre: tuple[float, float]
    color: ColorTransform | None

    def image(self, image: np.ndarray, number: int = 0) -> np.ndarray:
        """Frame `number` of the clip changed, uint8 `[H, W, 3]`."""
        picture = self._moved(image, Image.Resampling.BILINEAR)
        if self.color is None:
            return np.array(picture)
        return self.color.image(picture, number)

    def label(self, label: np.ndarray) -> np.ndarray:
        """The clip's label changed, uint8 `[H, W]`, nearest neighbour."""
        return np.array(self._moved(label, Image.Resampling.NEAREST))

    def _moved(self, array: np.ndarray, filter: Image.Resampling) -> Image.Image:
        height, width = array.shape[:2]
        picture = Image.fromarray(array)
        if self.scale != 1:
            above, top, bottom = self._view(height, self.centre[0])
            beside, left, right = self._view(width, self.centre[1])
            if above or beside:
                around = [(above,) * 2, (beside,) * 2, (0, 0)][: array.ndim]
                picture = Image.fromarray(np.pad(array, around, mode="reflect"))
            box = (left, top, right, bottom)
            picture = picture.resize((width, height), filter, box=box)
        if self.flip_horizontal:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.flip_vertical:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return picture

    def _view(self, length: int, centre: float) -> tuple[int, float, float]:
        """What is seen of one axis: border to add at each end, then first and last."""
        seen = length / self.scale
        border = max(0, math.ceil(seen - length))
        first = border + centre * (length - seen)
        return border, first, min(first + seen, length + 2 * border)


def draw_color(
    rng: np.random.Generator, size: tuple[int, int], strength: float
) -> ColorTransform:
    """Draws the photometric changes of a clip at `strength` in 0..1.

    The ranges at strength 1 are wider than what lamps and cameras differ by in
    practice: a factor of 1.4 in brightness, 1.3 in a channel, 1.5 in gamma.
    """

    def spread(width: float, *shape: int) -> np.ndarray:
        return strength * rng.uniform(-width, width, shape)

    luma = np.array([0.299, 0.587, 0.114])
    saturation = 1 + spread(0.6)
    saturate = saturation * np.eye(3) + (1 - saturation) * luma
    mix = np.eye(3) + spread(0.15, 3, 3)
    matrix = mix / mix.sum(axis=1, keepdims=True) @ saturate

    gains = np.exp(spread(np.log(1.4)) + spread(np.log(1.3), 3))
    gamma = np.exp(spread(np.log(1.5)))
    contrast = 1 + spread(0.35)
    levels = gains[:, None] * np.linspace(0, 1, 256) ** gamma
    levels = 0.5 + contrast * (levels - 0.5)
    curves = np.rint(255 * levels.clip(0, 1)).astype(int)

    degraded = rng.random(2) < strength - 0.5
    amount = strength * rng.random(2)
    noise = None
    if degraded[1]:
        values = 8 * amount[1] * rng.standard_normal((*size, 3), dtype=np.float32)
        noise = np.rint(values).astype(np.int16)
    return ColorTransform(
        matrix=matrix,
        curves=tuple(curves.ravel().tolist()),
        blur=float(degraded[0] * amount[0] * 1.5 * size[0] / 256),
        noise=noise,
    )
