"""Pictures as the page shows them: small, encoded, and as data URLs."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dmnet_jax.video.overlay import Color

LONGEST = 720
"""Longest side of the video on the page, in pixels."""

THUMBNAIL = 120
"""Longest side of a remembered frame on the page, in pixels."""


def reduced(image: np.ndarray, longest: int) -> np.ndarray:
    """Shrinks an image, uint8 [H, W, 3], until no side is above `longest`."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height)))


def jpeg(image: np.ndarray) -> str:
    """Encodes an image, uint8 [H, W, 3]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def mask(label: np.ndarray, colors: Sequence[Color]) -> str:
    """Encodes a label map, uint8 [h, w], in its colors; the background is clear."""
    picture = Image.fromarray(label)
    picture.putpalette([channel for color in colors for channel in color])
    return _png(picture, transparency=0)


def trust(values: np.ndarray | None) -> dict[str, Any] | None:
    """Encodes a trust map, float32 [h, w]: white where the frame is trusted.

    Returns:
        "image" and "mean"; None without a map.
    """
    if values is None:
        return None
    gray = np.rint(255 * values).astype(np.uint8)
    mean = round(float(values.mean()), 4)
    return {"image": _png(Image.fromarray(gray)), "mean": mean}


def _png(picture: Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1, **options)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
