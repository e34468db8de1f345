"""Random augmentation of training clips.

The paper (section 3) flips in both directions and scales by 0.9 to 1.1. All frames of a
clip get the same flips, scale and position, so that motion is preserved. Photometric
changes are off by default, as in the paper. They are intended for small training sets,
where a network would otherwise learn the tissue color of a clip.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Augment:
    """Distribution of the random changes.

    Attributes:
        flip_horizontal: flip half of the clips left to right.
        flip_vertical: flip half of the clips top to bottom.
        scale: minimum and maximum scale, drawn uniformly; the center of scaling is
            drawn uniformly over the frame. Below 1, the border of images and labels is
            filled by reflection.
        photometric: strength, in 0..1, of changes of brightness, contrast, gamma,
            channel gains, saturation and channel mixing. Above 0.5, some clips are also
            blurred or noisy. 0 turns photometric changes off.
    """

    flip_horizontal: bool = True
    flip_vertical: bool = True
    scale: tuple[float, float] = (0.9, 1.1)
    photometric: float = 0.0

    def __post_init__(self):
        if not 0.5 < self.scale[0] <= self.scale[1] < 10:
            raise ValueError(
                f"scale={self.scale}: use (minimum, maximum), above 0.5 and below 10"
            )
        if not 0 <= self.photometric <= 1:
            raise ValueError(f"photometric={self.photometric}: must be within 0..1")

    def draw(self, rng: np.random.Generator, size: tuple[int, int]) -> "Transform":
        """Draws the transform of a clip with frames of `size` (H, W)."""
        flips, (scale, y, x) = rng.random(2) < 0.5, rng.random(3)
        low, high = self.scale
        return Transform(
            flip_horizontal=self.flip_horizontal and bool(flips[0]),
            flip_vertical=self.flip_vertical and bool(flips[1]),
            scale=low + (high - low) * scale,
            center=(y, x),
            color=draw_color(rng, size, self.photometric) if self.photometric else None,
        )

    def __call__(
        self, rng: np.random.Generator, frames: np.ndarray, label: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augments a clip, as a pure function of the generator's state.

        Args:
            rng: for example `Generator(Philox(key=[seed, sample]))`.
            frames: uint8 `[T, H, W, 3]`.
            label: uint8 `[H, W]`.

        Returns:
            New arrays of the same shapes and dtypes.
        """
        transform = self.draw(rng, label.shape)
        images = [transform.image(frame, index) for index, frame in enumerate(frames)]
        return np.stack(images), transform.label(label)


@dataclass(frozen=True)
class ColorTransform:
    """The photometric transform of a clip.

    Attributes:
        matrix: float `[3, 3]`, maps RGB to RGB; rows sum to 1, which preserves gray.
        curves: 768 values: the new level for each level of R, then G, then B.
        blur: radius of a box blur in pixels.
        noise: int16 `[H, W, 3]`, added to the image; shifted from frame to frame.
    """

    matrix: np.ndarray
    curves: tuple[int, ...]
    blur: float
    noise: np.ndarray | None

    def image(self, picture: Image.Image, index: int) -> np.ndarray:
        """Transforms the frame with this index in the clip to uint8 `[H, W, 3]`."""
        rows = np.pad(self.matrix, ((0, 0), (0, 1)))
        picture = picture.convert("RGB", tuple(rows.ravel().tolist()))
        picture = picture.point(self.curves)
        if self.blur > 0:
            picture = picture.filter(ImageFilter.BoxBlur(self.blur))
        if self.noise is None:
            return np.array(picture)
        # 37 and 53 have no factor in common with usual sizes, so shifts repeat late.
        noisy = np.roll(self.noise, (37 * index, 53 * index), (0, 1))
        noisy += np.asarray(picture)
        return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


@dataclass(frozen=True)
class Transform:
    """The transform of a clip.

    Attributes:
        flip_horizontal: flip left to right.
        flip_vertical: flip top to bottom.
        scale: scale factor.
        center: fixed point of the scaling, (y, x) relative to the frame, in 0..1.
        color: the photometric transform, if any.
    """

    flip_horizontal: bool
    flip_vertical: bool
    scale: float
    center: tuple[float, float]
    color: ColorTransform | None

    def image(self, image: np.ndarray, index: int = 0) -> np.ndarray:
        """Transforms the frame with this index in the clip, uint8 `[H, W, 3]`."""
        picture = self._warp(image, Image.Resampling.BILINEAR)
        if self.color is None:
            return np.array(picture)
        return self.color.image(picture, index)

    def label(self, label: np.ndarray) -> np.ndarray:
        """Transforms a label, uint8 `[H, W]`, nearest neighbor."""
        return np.array(self._warp(label, Image.Resampling.NEAREST))

    def _warp(self, array: np.ndarray, filter: Image.Resampling) -> Image.Image:
        height, width = array.shape[:2]
        picture = Image.fromarray(array)
        if self.scale != 1:
            pad_y, top, bottom = self._crop(height, self.center[0])
            pad_x, left, right = self._crop(width, self.center[1])
            if pad_y or pad_x:
                padding = [(pad_y, pad_y), (pad_x, pad_x), (0, 0)][: array.ndim]
                picture = Image.fromarray(np.pad(array, padding, mode="reflect"))
            box = (left, top, right, bottom)
            picture = picture.resize((width, height), filter, box=box)
        if self.flip_horizontal:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.flip_vertical:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return picture

    def _crop(self, length: int, center: float) -> tuple[int, float, float]:
        """Returns the padding of an axis and (start, end) of the crop after padding."""
        visible = length / self.scale
        padding = max(0, math.ceil(visible - length))
        start = padding + center * (length - visible)
        return padding, start, min(start + visible, length + 2 * padding)


def draw_color(
    rng: np.random.Generator, size: tuple[int, int], strength: float
) -> ColorTransform:
    """Draws the photometric transform of a clip.

    The ranges at strength 1 are wider than the differences between lamps and cameras in
    practice: a factor of 1.4 in brightness, 1.3 in a channel, 1.5 in gamma.

    Args:
        rng: the generator.
        size: (H, W) of the frames.
        strength: strength of the changes, in 0..1.
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

    # Blur and noise, in this order.
    applied = rng.random(2) < strength - 0.5
    amount = strength * rng.random(2)
    noise = None
    if applied[1]:
        values = 8 * amount[1] * rng.standard_normal((*size, 3), dtype=np.float32)
        noise = np.rint(values).astype(np.int16)
    return ColorTransform(
        matrix=matrix,
        curves=tuple(curves.ravel().tolist()),
        blur=float(applied[0] * amount[0] * 1.5 * size[0] / 256),
        noise=noise,
    )
