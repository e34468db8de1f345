"""Errors while a video is written."""

import numpy as np
import pytest

from data_pipelines.io.files import WriteError

av = pytest.importorskip("av", reason='needs PyAV: pip install -e ".[video]"')
from dmnet_jax.video.pyav import VideoFile, VideoWriter  # noqa: E402


def test_encoder_error_names_the_file(tmp_path):
    with pytest.raises(WriteError, match="wide.mp4: cannot be written"):
        with VideoWriter(tmp_path / "wide.mp4", 25) as writer:
            writer.add(np.zeros((4, 20_000, 3), np.uint8), 0.0)
    with pytest.raises(WriteError, match="nowhere.*cannot be written"):
        with VideoWriter(tmp_path / "nowhere" / "a.mp4", 25) as writer:
            writer.add(np.zeros((48, 64, 3), np.uint8), 0.0)
    with VideoWriter(tmp_path / "10:30.mp4", 25) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8), 0.0)
    assert len(list(VideoFile(tmp_path / "10:30.mp4"))) == 1
