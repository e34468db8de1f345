"""Encoded pictures, decoded again by Pillow."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.live import pictures


def decoded(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize(
    ("size", "reduced"),
    [((100, 50), (100, 50)), ((800, 400), (100, 50)), ((4000, 3), (100, 1))],
)
def test_reduced(size, reduced):
    image = np.zeros((*size, 3), np.uint8)
    assert pictures.reduced(image, 100).shape == (*reduced, 3)


def test_jpeg_is_close_to_the_image():
    image = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    restored = np.asarray(decoded(pictures.jpeg(image)))
    assert restored.shape == image.shape
    assert np.abs(restored.astype(int) - image).max() < 4


def test_mask_has_the_colors_of_the_classes_and_a_clear_background():
    label = np.array([[0, 1], [2, 1]], np.uint8)
    colors = ((0, 0, 0), (255, 0, 0), (0, 0, 255))
    rgba = np.asarray(decoded(pictures.mask(label, colors)).convert("RGBA"))
    assert (rgba[..., 3] == np.where(label, 255, 0)).all()
    assert (rgba[..., :3][label == 2] == (0, 0, 255)).all()


def test_trust_is_gray_with_its_mean():
    trust = pictures.trust(np.array([[0.0, 1.0], [0.5, 0.5]], np.float32))
    assert trust is not None and trust["mean"] == 0.5
    assert np.asarray(decoded(trust["image"])).tolist() == [[0, 255], [128, 128]]
    assert pictures.trust(None) is None
