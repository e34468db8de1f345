"""Optical flow, and the error if OpenCV is not installed."""

import sys

import numpy as np
import pytest

from data_pipelines.frames import DataError
from data_pipelines.loading.flow import dense_flow


def test_flow_equals_the_motion():
    pytest.importorskip("cv2", reason="the extra flow is not installed")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (12, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    before, after = picture[8:72, 8:72], picture[5:69, 10:74]
    flow = dense_flow(before, after)
    assert flow.shape == (64, 64, 2) and flow.dtype == np.float32
    median = np.median(flow[16:48, 16:48], (0, 1))
    np.testing.assert_allclose(median, (-2, 3), atol=0.2)


def test_the_error_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    black = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(DataError, match=r'pip install -e "\.\[flow\]"$'):
        dense_flow(black, black)
