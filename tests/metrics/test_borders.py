import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmnet_jax.metrics import flicker, normalized_surface_distance

CLASSES = 4
SIZE = (5, 7)


@st.composite
def videos(draw, max_frames=5):
    """Predictions and labels [T, H, W] that mostly agree, some pixels not scored."""
    shape = (draw(st.integers(1, max_frames)), *SIZE)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.where(rng.random(shape) < 0.6, 0, rng.integers(0, CLASSES, shape))
    predictions = np.where(
        rng.random(shape) < 0.7, labels, rng.integers(0, CLASSES, shape)
    )
    labels[rng.random(shape) < 0.1 * rng.integers(0, 3)] = 255
    return predictions % 255, labels


def slow_border(picture, label, class_id):
    height, width = picture.shape
    actual = set()
    for y, x in np.argwhere((picture == class_id) & (label != 255)).tolist():
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < height and 0 <= u < width
            if inside and picture[v, u] != class_id and label[v, u] != 255:
                actual.add((y, x))
    return actual


@given(
    videos(max_frames=1),
    st.integers(0, CLASSES - 1),
    st.sampled_from([0, 0.5, 1, 2**0.5, 2, 5**0.5, 2.9, 5, 100]),
)
@settings(max_examples=80, deadline=None)
def test_surface_distance_equals_a_slow_reference(video, class_id, tolerance):
    picture, label = video[0][0], video[1][0]
    ours = slow_border(picture, label, class_id)
    theirs = slow_border(label, label, class_id)
    near = sum(
        any(math.dist(a, b) <= tolerance + 1e-9 for b in target)
        for source, target in ((ours, theirs), (theirs, ours))
        for a in source
    )
    total = len(ours) + len(theirs)
    actual = normalized_surface_distance(picture, label, class_id, tolerance)
    np.testing.assert_allclose(actual, near / total if total else math.nan)


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 20))
@settings(max_examples=150, deadline=None)
def test_surface_distance_tolerance_is_a_disk(rows, columns, tolerance):
    assume(abs(math.hypot(rows, columns) - tolerance) > 1e-9)
    one, target = np.zeros((2, 13, 13), np.uint8)
    one[0, columns] = target[rows, 0] = 1
    expected = float(math.hypot(rows, columns) <= tolerance)
    for a, b in ((one, target), (target, one), (one[:, ::-1], target[:, ::-1])):
        assert normalized_surface_distance(a, b, 1, tolerance) == expected


def test_surface_distance_of_a_shifted_square():
    label = np.zeros((40, 40), np.uint8)
    label[10:20, 10:20] = 1
    moved = np.roll(label, 3, axis=1)
    assert normalized_surface_distance(label, label, 1, 0) == 1
    assert normalized_surface_distance(moved, label, 1, 3) == 1
    assert 0 < normalized_surface_distance(moved, label, 1, 2.9) < 1
    assert normalized_surface_distance(0 * label, label, 1, 50) == 0
    assert math.isnan(normalized_surface_distance(label, label, 2, 1))
    # Regions cut off by the image edge have no border there.
    band = np.zeros((40, 40), np.uint8)
    band[10:20] = 1
    assert math.isnan(normalized_surface_distance(band[12:18], band[12:18], 1, 1))
    assert normalized_surface_distance(np.roll(band, 7, 0), band, 1, 0.5) == 0


@given(videos())
@settings(max_examples=40, deadline=None)
def test_flicker_equals_a_loop(video):
    predictions, labels = video
    changed = []
    for t in range(1, len(labels)):
        for place in np.ndindex(SIZE):
            now, before = labels[t][place], labels[t - 1][place]
            p, q = predictions[t][place], predictions[t - 1][place]
            if now == before != 255 and (now, p, q) != (0, 0, 0):
                changed.append(p != q)
    expected = np.mean(changed) if changed else math.nan
    np.testing.assert_allclose(flicker(predictions, labels), expected)
    perfect = flicker(labels % 255, labels)
    assert perfect == 0 or math.isnan(perfect)


def test_flicker_by_hand():
    labels = np.zeros((3, 1, 4), np.uint8)
    labels[:, 0, 1:] = 1
    predictions = labels.copy()
    predictions[1, 0, 3] = 0
    # Columns 1..3 count in both pairs; column 3 changes in both.
    assert flicker(predictions, labels) == 2 / 6
    assert math.isnan(flicker(predictions[:1], labels[:1]))


def test_mistakes_are_reported():
    label = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="tolerance_px"):
        normalized_surface_distance(label, label, 1, -1)
    with pytest.raises(ValueError, match="do not match"):
        normalized_surface_distance(label, label[:3], 1, 1)
    with pytest.raises(ValueError, match="T, H, W"):
        flicker(label, label)
