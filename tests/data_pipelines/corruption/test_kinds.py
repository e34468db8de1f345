"""Corruptions are pure, graded, coherent in time, and independent of the size."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.corruption import KINDS, SEVERITIES, UNGRADED, corrupt
from tests.support.tiny_run import picture

GRADED = [kind for kind in KINDS if kind not in UNGRADED]
FRAME = np.asarray(Image.fromarray(picture(3)[0]).resize((120, 96)))


def coarse(change):
    """Returns a change at low resolution, without noise and the edges of the scene."""
    image = Image.fromarray(np.abs(change).mean(-1).astype(np.float32))
    return np.asarray(image.resize((15, 12), Image.Resampling.BOX))


def change(kind, severity=4, seed=0, step=0, frame=FRAME):
    result = corrupt(frame, kind, severity, seed=seed, step=step)
    return result.astype(np.float32) - frame


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 120), (37, 53), (64, 64), (33, 200)])
def test_results_depend_only_on_the_arguments(kind, size):
    frame = np.asarray(Image.fromarray(FRAME).resize(size[::-1]))
    before = frame[::-1].copy()
    original = frame.copy()
    result, again, other = (
        corrupt(frame, kind, 3, seed=seed, step=2, before=before) for seed in (5, 5, 6)
    )
    assert result.shape == frame.shape and result.dtype == np.uint8
    np.testing.assert_array_equal(result, again)
    np.testing.assert_array_equal(frame, original)
    assert not np.array_equal(result, frame)
    assert (kind in UNGRADED) == np.array_equal(result, other)


@pytest.mark.parametrize("kind", GRADED)
def test_a_higher_severity_changes_more(kind):
    means = [
        np.mean([np.abs(change(kind, s, seed)).mean() for seed in range(6)])
        for s in SEVERITIES
    ]
    assert all(low < high for low, high in zip(means, means[1:], strict=False)), means
    assert means[-1] > 1.5 * means[0]


@pytest.mark.parametrize("kind", GRADED)
def test_frames_of_a_burst_resemble_each_other(kind):
    """They are more similar than frames of two bursts, but not equal."""
    near, far = [], []
    for seed in range(8):
        first = coarse(change(kind, seed=seed, step=4))
        second = coarse(change(kind, seed=seed, step=5))
        near.append(np.abs(first - second).mean())
        far.append(np.abs(first - coarse(change(kind, seed=seed + 50))).mean())
        assert not np.array_equal(
            change(kind, seed=seed, step=4), change(kind, seed=seed, step=5)
        )
    assert np.mean(near) < 0.6 * np.mean(far)


@pytest.mark.parametrize("kind", GRADED)
def test_one_seed_looks_the_same_at_every_size(kind):
    large = np.asarray(Image.fromarray(FRAME).resize((480, 384)))
    here, there, other = (
        coarse(change(kind, seed=seed, step=3, frame=frame))
        for seed, frame in ((1, FRAME), (1, large), (2, large))
    )
    assert np.abs(here - there).mean() < 0.5 * np.abs(here - other).mean() + 1


def test_black_and_frozen_replace_the_frame():
    assert not corrupt(FRAME, "black", 0, seed=0).any()
    before = FRAME[::-1]
    assert corrupt(FRAME, "frozen", 0, seed=0, before=before) is before


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("fog", 3), "no corruption 'fog'; one of defocus"),
        (("smoke", 6), "severity is 6; it must be 1 to 5"),
        (("frozen", 0), "pass `before`"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt(FRAME, *arguments, seed=0)
