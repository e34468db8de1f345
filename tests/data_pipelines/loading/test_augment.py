"""Augmentation, compared with slow references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.loading.augment import Augment, Transform, draw_color

transforms = st.builds(
    Transform,
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
    scale=st.one_of(st.just(1.0), st.floats(0.7, 1.5)),
    center=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    color=st.none(),
)


def rng_of(*key):
    return np.random.Generator(np.random.Philox(key=list(key)))


def reflected(index, length):
    period = 2 * (length - 1)
    index %= period
    return min(index, period - index)


def source_line(length, scale, center, flip):
    """Returns the position of each new pixel's center on the old axis, in pixels."""
    lines = center * length + (np.arange(length) + 0.5 - center * length) / scale
    return lines[::-1] if flip else lines


def nearest(label, transform):
    (height, width), (y, x) = label.shape, transform.center
    rows = source_line(height, transform.scale, y, transform.flip_vertical)
    columns = source_line(width, transform.scale, x, transform.flip_horizontal)
    return np.array(
        [
            [
                label[
                    reflected(int(np.floor(r)), height),
                    reflected(int(np.floor(c)), width),
                ]
                for c in columns
            ]
            for r in rows
        ]
    ), (rows, columns)


@settings(max_examples=60, deadline=None)
@given(transform=transforms)
def test_label_equals_pixel_by_pixel_reference(transform):
    label = np.arange(17 * 23).reshape(17, 23) % 251
    label = label.astype(np.uint8)
    expected, (rows, columns) = nearest(label, transform)
    # If a center is on the edge of two pixels, either is valid.
    sure = np.ix_(*(np.abs(line - np.rint(line)) > 1e-4 for line in (rows, columns)))
    changed = transform.label(label)
    assert changed.dtype == np.uint8 and changed.shape == label.shape
    assert np.array_equal(changed[sure], expected[sure])


@settings(max_examples=40, deadline=None)
@given(transform=transforms)
def test_image_equals_triangle_filter_reference(transform):
    image = np.random.default_rng(0).integers(0, 256, (15, 19, 3), dtype=np.uint8)

    def weights(length, center, flip):
        table = np.zeros((length, length))
        support = max(1.0, 1 / transform.scale)
        for i, at in enumerate(source_line(length, transform.scale, center, flip)):
            for j in range(-length // 2, length + length // 2):
                weight = max(0.0, 1 - abs(j + 0.5 - at) / support)
                table[i, reflected(j, length)] += weight
        return table / table.sum(axis=1, keepdims=True)

    down = weights(15, transform.center[0], transform.flip_vertical)
    across = weights(19, transform.center[1], transform.flip_horizontal)
    expected = np.einsum("yi,xj,ijc->yxc", down, across, image)
    inner = np.s_[1:-1, 1:-1] if transform.scale != 1 else np.s_[:, :]
    error = np.abs(transform.image(image).astype(float) - expected)
    # At the outermost pixels, the resampler does not use pixels outside of the crop.
    assert error[inner].max() < 2.5


@settings(max_examples=40, deadline=None)
@given(transform=transforms)
def test_a_label_painted_into_the_image_stays_on_the_label(transform):
    label = np.zeros((40, 56), np.uint8)
    label[5:20, 10:31] = 1
    label[28:37, 2:50] = 1
    image = np.repeat(label[..., None] * np.uint8(200), 3, axis=-1)
    changed, moved = transform.label(label), transform.image(image)
    around = np.stack([np.roll(changed, s, (0, 1)) for s in np.ndindex(3, 3)])
    around = np.roll(around, (-1, -1), (1, 2))
    inside = (around == changed).all(axis=0)
    inside[[0, -1]] = inside[:, [0, -1]] = False
    assert inside.mean() > 0.4
    assert np.array_equal(moved[inside][:, 0], changed[inside] * 200)


def test_identity_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3), dtype=np.uint8)
    label = image[0, ..., 0]
    still = Augment(False, False, scale=(1, 1))
    frames, same = still(rng_of(0, 0), image, label)
    assert np.array_equal(frames, image) and np.array_equal(same, label)


def test_all_frames_and_the_label_get_one_geometry():
    frame = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    frames, label = np.stack([frame] * 3), np.ascontiguousarray(frame[..., 0])
    for sample in range(20):
        changed, _ = Augment()(rng_of(7, sample), frames, label)
        assert (changed == changed[0]).all()


def test_flips_happen_in_half_of_the_clips_and_scales_fill_the_range():
    transform = [Augment().draw(rng_of(1, i), (8, 8)) for i in range(2000)]
    assert 900 < sum(d.flip_horizontal for d in transform) < 1100
    assert 900 < sum(d.flip_vertical for d in transform) < 1100
    both = sum(d.flip_horizontal and d.flip_vertical for d in transform)
    assert 420 < both < 580
    scales = np.array([d.scale for d in transform])
    assert 0.9 <= scales.min() < 0.905 and 1.095 < scales.max() <= 1.1
    assert abs(scales.mean() - 1) < 0.005
    centers = np.array([d.center for d in transform])
    assert centers.min() < 0.01 and centers.max() > 0.99
    fixed = Augment(flip_horizontal=False, flip_vertical=False)
    turned = [fixed.draw(rng_of(1, i), (8, 8)) for i in range(50)]
    assert not any(d.flip_horizontal or d.flip_vertical for d in turned)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_same_key_same_bytes(strength):
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)
    before, label = frames.copy(), np.ascontiguousarray(frames[0, ..., 1])
    augment = Augment(photometric=strength)
    first, other = (augment(rng_of(5, i), frames, label) for i in (0, 1))
    again = augment(rng_of(5, 0), frames, label)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == frames.shape and first[0].dtype == np.uint8
    assert np.array_equal(frames, before)


def test_color_changes_keep_the_label_and_its_geometry():
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 20, 3), dtype=np.uint8)
    label = np.ascontiguousarray(frames[0, ..., 1])
    for sample in range(10):
        plain, colored = (
            Augment(photometric=s)(rng_of(2, sample), frames, label) for s in (0.0, 1.0)
        )
        assert np.array_equal(plain[1], colored[1])
        assert not np.array_equal(plain[0], colored[0])


def test_color_of_a_clip_equals_slow_reference():
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    for sample in range(10):
        color = draw_color(rng_of(3, sample), (6, 7), 0.5)
        assert color.blur == 0 and color.noise is None
        still = Transform(False, False, 1.0, (0.5, 0.5), color)
        changed = still.image(image)
        curves = np.array(color.curves).reshape(3, 256)
        for pixel, new in zip(
            image.reshape(-1, 3), changed.reshape(-1, 3), strict=True
        ):
            mixed = (color.matrix @ pixel).clip(0, 255)
            near = [{int(np.floor(v)), int(np.ceil(v))} for v in mixed]
            for channel, levels in enumerate(near):
                assert new[channel] in {curves[channel, v] for v in levels}
        gray = color.matrix @ np.full(3, 90.0)
        np.testing.assert_allclose(gray, 90, atol=1e-9)
        assert (np.diff(curves, axis=1) >= 0).all()


def test_strength_increases_the_change_and_zero_disables_it():
    gray = np.full((32, 40, 3), 120, np.uint8)

    def change(strength):
        sums = 0.0
        for sample in range(60):
            augment = Augment(scale=(1, 1), photometric=strength)
            new = augment.draw(rng_of(4, sample), (32, 40)).image(gray)
            sums += np.abs(new.astype(float) - 120).mean()
        return sums / 60

    changes = [change(strength) for strength in (0.0, 0.2, 0.5, 1.0)]
    assert changes[0] == 0
    assert changes == sorted(changes) and changes[1] > 2 and changes[3] < 80


def test_blur_and_noise_are_applied_only_at_high_strength():
    low = [draw_color(rng_of(6, i), (8, 8), 0.5) for i in range(100)]
    high = [draw_color(rng_of(6, i), (8, 8), 1.0) for i in range(400)]
    assert not any(c.blur or c.noise is not None for c in low)
    assert 150 < sum(c.blur > 0 for c in high) < 250
    assert 150 < sum(c.noise is not None for c in high) < 250


def test_noise_differs_from_frame_to_frame():
    image = np.full((32, 40, 3), 120, np.uint8)
    colors = (draw_color(rng_of(6, i), (32, 40), 1.0) for i in range(100))
    color = next(c for c in colors if c.noise is not None and np.std(c.noise) > 3)
    still = Transform(False, False, 1.0, (0.5, 0.5), color)
    frames = np.stack([still.image(image, number) for number in range(4)])
    noise = (frames - frames.mean(axis=(1, 2), keepdims=True)).reshape(4, -1)
    correlation = np.corrcoef(noise) - np.eye(4)
    assert np.abs(correlation).max() < 0.1


@pytest.mark.parametrize("scale", [(0.5, 1.1), (1.1, 0.9), (0.0, 1.0), (1.0, 10.0)])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale="):
        Augment(scale=scale)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_impossible_strengths_are_refused(strength):
    with pytest.raises(ValueError, match="photometric="):
        Augment(photometric=strength)
