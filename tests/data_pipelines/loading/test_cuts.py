"""Cuts in sequences: the frames of a row, and batches as pure functions of the step."""

import numpy as np

from data_pipelines.loading.cuts import FEW_CUTS, WithCuts, cut_rows
from data_pipelines.synthetic.fields import generator

ROWS, LENGTH = 3, 6


class Numbered:
    """Sequences whose frames contain (row, time), and whose videos are the step."""

    source, steps_per_epoch = None, 4

    def batch(self, step):
        place = np.stack(np.indices((ROWS, LENGTH)), -1)
        return {
            "frames": np.broadcast_to(place[..., None], (ROWS, LENGTH, 2, 5)).copy(),
            "frames_mask": np.ones((ROWS, LENGTH), bool),
            "label": place,
            "past": np.zeros((ROWS, 0, 2)),
            "video": np.full(ROWS, step, np.int32),
        }

    def iterate(self, start, stop):
        return map(self.batch, range(start, stop))

    def video_name(self, video):
        return f"video {video}"


def test_a_row_continues_in_the_next_rows():
    counts = []
    for seed in range(200):
        rows = cut_rows(generator(7, seed), ROWS, LENGTH, probability=0.6)
        assert (rows[:, 0] == np.arange(ROWS)).all()
        steps = np.diff(rows, axis=1) % ROWS
        assert set(np.unique(steps)) <= {0, 1}
        counts += [*steps.sum(1)]
    counts = np.bincount(counts, minlength=LENGTH)
    assert abs(counts[1:].sum() / counts.sum() - 0.6) < 0.06
    assert len(counts) == LENGTH and counts.all()
    assert counts[1 : FEW_CUTS + 1].sum() > 2 * counts[FEW_CUTS + 1 :].sum()


def test_zero_probability_one_row_and_one_frame_have_no_cuts():
    identity = np.broadcast_to(np.arange(ROWS)[:, None], (ROWS, LENGTH))
    rng = generator(0, 0)
    np.testing.assert_array_equal(cut_rows(rng, ROWS, LENGTH, probability=0), identity)
    assert not cut_rows(rng, 1, LENGTH, probability=1).any()
    np.testing.assert_array_equal(
        cut_rows(rng, ROWS, 1, probability=1), identity[:, :1]
    )


def test_frames_masks_and_labels_have_the_same_cuts():
    loader = WithCuts(Numbered(), 1.0, seed=3)
    batch = loader.batch(5)
    label = batch["label"]
    assert (label[..., 0] != np.arange(ROWS)[:, None]).any(axis=1).all()
    assert (label[..., 1] == np.arange(LENGTH)).all()
    np.testing.assert_array_equal(batch["frames"][:, :, :, 0], label)
    assert batch["past"].shape == (ROWS, 0, 2) and (batch["video"] == 5).all()


def test_a_batch_is_a_function_of_its_step():
    loader = WithCuts(Numbered(), 0.7, seed=3)
    for step, batch in enumerate(loader.iterate(2, 6), 2):
        for name, array in loader.batch(step).items():
            np.testing.assert_array_equal(array, batch[name])
    others = [loader.batch(step)["label"] for step in range(4)]
    assert any((others[0] != other).any() for other in others[1:])
    assert loader.video_name(2) == "video 2" and loader.steps_per_epoch == 4
