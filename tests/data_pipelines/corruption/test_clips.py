"""Corruption of training clips: which frames of a batch change."""

import numpy as np

from data_pipelines.corruption import Corruption
from data_pipelines.loading.clips import ClipSpec
from tests.data_pipelines.loading.test_loader import make


def test_only_frames_of_the_window_are_corrupted():
    corruption = Corruption(0.5, ("black",))
    for score_all in (False, True):
        spec = ClipSpec(local_size=3, num_past=1, score_all=score_all)
        plain, changed = make(spec=spec), make(spec=spec, corruption=corruption)
        hit = total = 0
        for step in range(6):
            before, after = plain.batch(step), changed.batch(step)
            for name in ("label", "past", "frames_mask", "frame"):
                np.testing.assert_array_equal(before[name], after[name])
            for row in range(4):
                black = (after["frames"][row] == 0).all((1, 2, 3))
                same = (after["frames"][row] == before["frames"][row]).all((1, 2, 3))
                assert (black | same).all() and same[0]
                assert (before["frames_mask"][row] | same).all()
                hit, total = hit + bool((~same).any()), total + 1
        assert 0.2 * total < hit < 0.8 * total


def test_a_single_frame_is_corrupted_itself():
    spec = ClipSpec(local_size=0, num_past=0)
    loader = make(spec=spec, corruption=Corruption(1.0, ("black",)))
    assert not loader.batch(0)["frames"].any()
