"""Videos and folders that start in the middle."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.video.sources import RATE, Folder, open_source
from tests.support import clips

av = pytest.importorskip("av", reason='needs PyAV: pip install -e ".[video]"')

from dmnet_jax.video.pyav import VideoFile  # noqa: E402


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    path = tmp_path_factory.mktemp("movie") / "a.mp4"
    return clips.write_video(path, "mpeg4", 60, gop_size=25)


@pytest.mark.parametrize("start", [0.0, 0.02, 0.4, 1.3, 2.36, 9.0])
def test_a_video_starts_where_it_is_asked_to(movie, start):
    frames = list(open_source(str(movie)))
    source = VideoFile(movie, start=start)
    skipped = min(math.ceil(start * 25 - 0.5), 59)
    parts = list(source)
    assert [part.seconds for part in parts] == pytest.approx(
        [frame.seconds for frame in frames[skipped:]]
    )
    np.testing.assert_array_equal(parts[0].image, frames[skipped].image)
    assert source.duration == pytest.approx(2.4, abs=0.05)


def test_a_folder_starts_where_it_is_asked_to(tmp_path):
    for index in range(4):
        Image.fromarray(clips.scene(index)).save(tmp_path / f"{index}.png")
    source = open_source(str(tmp_path))
    assert isinstance(source, Folder) and source.duration == 4 / RATE
    for start, names in ((0.0, "0123"), (2 / RATE, "23"), (9.0, "3")):
        part = list(dataclasses.replace(source, start=start))
        assert [frame.name for frame in part] == list(names)
        assert part[-1].seconds == 3 / RATE
