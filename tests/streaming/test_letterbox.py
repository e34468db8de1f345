"""Frames of any size give labels of the same size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.io.images import resize_image
from dmnet_jax.streaming import Policy
from dmnet_jax.streaming.letterbox import canvas_size, fitted, letterbox, restore
from tests.streaming.test_session import FRAMES, Recorder

NETWORK = (64, 96)
SIDES = st.integers(1, 200)


@given(SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_labels_have_the_size_of_the_frame(height, width):
    frame = np.full((height, width, 3), 200, np.uint8)
    canvas = letterbox(frame, NETWORK)
    assert canvas.shape == (*NETWORK, 3) and canvas.dtype == np.uint8
    padded = canvas_size((height, width), NETWORK)
    assert padded[0] == height or padded[1] == width
    assert abs(padded[0] * 96 - padded[1] * 64) <= 96
    label = np.full(NETWORK, 7, np.uint8)
    assert (restore(label, (height, width), NETWORK) == 7).all()
    assert restore(label, (height, width), NETWORK).shape == (height, width)


@given(SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_a_fitted_input_has_the_height_of_training_and_the_shape_of_the_frame(
    height, width
):
    rows, columns = fitted((height, width), (256, 320))
    assert rows == 256 and columns % 32 == 0 and 160 <= columns <= 640
    exact = 256 * width / height
    assert abs(columns - min(max(exact, 160), 640)) <= 16


def test_the_fitted_input_of_common_videos():
    sizes = {(1024, 1280): 320, (576, 720): 320, (480, 640): 352, (1080, 1920): 448}
    for size, width in sizes.items():
        assert fitted(size, (256, 320)) == (256, width)


@pytest.mark.parametrize("size", [(128, 192), (100, 300), (300, 100), (31, 40)])
def test_labels_stay_at_the_position_of_the_object(size):
    """A square segmented at the network's size is mapped back to its position."""
    frame = np.zeros((*size, 3), np.uint8)
    rows, columns = (slice(side // 4, side // 2) for side in size)
    frame[rows, columns] = 255
    restored = restore(
        (letterbox(frame, NETWORK)[..., 0] > 127).astype(np.uint8), size, NETWORK
    )
    truth = frame[..., 0] > 0
    assert (restored & truth).sum() / (restored | truth).sum() > 0.75


def test_frames_of_the_same_aspect_are_resized_like_training_data():
    frame = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)
    np.testing.assert_array_equal(
        letterbox(frame, NETWORK), resize_image(frame, NETWORK)
    )
    fitting = FRAMES[0]
    assert letterbox(fitting, fitting.shape[:2]) is fitting


def test_session_accepts_frame_sizes_that_change():
    recorder = Recorder()  # 32 by 64
    session = recorder.session(policy=Policy(other_sizes="letterbox"))
    rng = np.random.default_rng(1)
    for size in ((32, 64), (64, 128), (90, 50), (16, 100), (33, 64)):
        result = session.step(rng.integers(0, 256, (*size, 3), np.uint8))
        assert result.status == "ok", result
        assert result.labels is not None and result.labels.shape == size
    wrong = [FRAMES[0][..., 0], FRAMES[0] / 1.0, FRAMES[0][:0], None]
    assert [session.step(frame).status for frame in wrong] == ["refused"] * 4
    assert session.stats()["letterboxed"] == 4 and len(recorder.resets) == 5


def test_frame_decoded_with_errors_is_not_used():
    recorder = Recorder()
    session = recorder.session()
    statuses = [
        session.step(FRAMES[i], damage=damage).status
        for i, damage in enumerate(("", "error while decoding MB 0 13", ""))
    ]
    assert statuses == ["ok", "suspect", "ok"]
    assert recorder.resets == [2, 0] and session.stats()["suspect"] == 1
