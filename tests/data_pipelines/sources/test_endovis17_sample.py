"""Real frames of EndoVis 2017, if they are available."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.frames import read_gray, read_image
from data_pipelines.sources.endovis17 import open_endovis17

SAMPLE = Path(__file__).parents[4] / "shared/data/endovis17_format_sample/raw_1920x1080"


def test_crop_and_classes_of_real_frames(tmp_path):
    if not SAMPLE.is_dir():
        pytest.skip("no sample frames at ../shared/data/endovis17_format_sample")
    sequence = tmp_path / "instrument_dataset_4"
    shutil.copytree(SAMPLE / "left_frames", sequence / "left_frames")
    shutil.copytree(
        SAMPLE / "parts", sequence / "ground_truth" / "Prograsp_Forceps_labels"
    )
    source = open_endovis17(tmp_path, task="parts")
    picture, mask = source.files(0, 1)
    original = read_image(picture)
    assert original.shape == (1080, 1920, 3)
    np.testing.assert_array_equal(source.image(0, 1), original[28:1052, 320:1600])
    label = source.label(0, 1)
    np.testing.assert_array_equal(10 * label, read_gray(mask)[28:1052, 320:1600])
    assert set(np.unique(label)) == {0, 1, 2, 3}
    # The border is dark, and no label reaches into it.
    original[28:1052, 320:1600] = 0
    assert original.max() < 30 and not source.unknown_values(0, 1)
    assert np.count_nonzero(label) == np.count_nonzero(read_gray(mask))
