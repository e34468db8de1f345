"""Draws COCO's polygons and run lengths as pixels."""

import math
from typing import Any

import numpy as np

from data_pipelines.frames import DataError
from data_pipelines.io.environment import install_command
from data_pipelines.io.images import size_fault


def require_pycocotools() -> Any:
    """Returns the module `pycocotools.mask`.

    Raises:
        DataError: pycocotools is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise DataError(
            [f"COCO needs pycocotools: {install_command('coco')} ({error})"]
        ) from error
    return mask


def image_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Returns (height, width), or None if they are not valid for an image."""
    if type(height) is not int or type(width) is not int:
        return None
    return None if size_fault(height, width) else (height, width)


def draw(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Draws a segmentation as a mask, bool `[H, W]`.

    Args:
        segmentation: a list of polygons, each x1, y1, x2, y2, ..., or run lengths.
        size: (H, W).

    Raises:
        ValueError: the segmentation is invalid.
        DataError: pycocotools is not installed.
    """
    if isinstance(segmentation, list) and segmentation:
        polygons = [_polygon(points, size) for points in segmentation]
        mask = require_pycocotools()
        segmentation = mask.merge(mask.frPyObjects(polygons, *size))
        segmentation["counts"] = segmentation["counts"].decode("ascii")
    if not isinstance(segmentation, dict):
        raise ValueError(
            "segmentation: neither polygons nor a mask; a box is not enough"
        )
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"segmentation: size {segmentation.get('size')} is not the image's "
            f"{list(size)}"
        )
    counts = segmentation.get("counts")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(x) is int and x >= 0 for x in runs):
        raise ValueError("segmentation: counts are not run lengths")
    if sum(runs) != math.prod(size):
        raise ValueError(
            f"segmentation: counts are {sum(runs)} pixels, the image has "
            f"{math.prod(size)}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size, order="F")


def _polygon(points: Any, size: tuple[int, int]) -> list[float]:
    """Checks the points of a polygon and returns them."""
    valid = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
    if not valid or not all(type(x) in (int, float) for x in points):
        raise ValueError("segmentation: a polygon must be x1, y1, x2, y2, x3, y3, ...")
    limit = 2 * max(size)
    if not all(-limit <= x <= limit for x in points):  # False for NaN
        raise ValueError("segmentation: a polygon is far outside the image")
    return points


def _runs(text: str) -> list[int]:
    """Decodes COCO's text: 5 bits per letter, differences from the third run on.

    pycocotools is not used, because it does not check the number of pixels.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("segmentation: counts are not run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16) << shift - 4  # the highest bit is the sign
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("segmentation: counts end too early")
    return runs
