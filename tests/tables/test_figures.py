"""Figures of synthetic predictions."""

import numpy as np
import pytest

from dmnet_jax.config import Config
from dmnet_jax.evaluation import Prediction
from dmnet_jax.tables import figures
from tests.support.tiny_run import Videos, picture

SOURCE = Videos((12, 8))


class Network:
    global_memory = True


@pytest.fixture
def predicted(monkeypatch):
    """Every run predicts the ground truth of SOURCE, shifted by one pixel column."""

    def predict(network, variables, source, video):
        rng = np.random.default_rng(video)
        for frame in range(SOURCE.lengths[video]):
            _, truth = picture(frame, seed=video)
            similarity = -np.inf if frame == 0 else -3 - rng.random()
            yield Prediction(
                *(frame, np.roll(truth, 1, 1), truth),
                *(-0.1 * rng.random(), similarity, frame % 3 == 0),
            )

    thresholds = {"min_confidence": np.float32(-0.05), "max_similarity": -3.5}
    opened = Network(), {"thresholds": thresholds}, SOURCE
    monkeypatch.setattr(figures, "opened", lambda run: opened)
    monkeypatch.setattr(figures.evaluation, "predict_video", predict)
    return opened


def test_figure_2_has_a_column_per_method_and_evenly_spaced_frames(predicted):
    assert figures._evenly(SOURCE, 3) == [(0, 5), (0, 10), (1, 2)]
    image = figures.figure2([("A", Config()), ("B", Config())], 3, width=64)
    assert image.width == 4 * 64 + 3 * 8
    first = np.asarray(image)[:64]
    truth = picture(5)[0]
    np.testing.assert_array_equal(first[:, :64], truth)
    assert (first[:, 72:136] == first[:, 144:208]).all()
    assert (first[:, 72:136] != first[:, 216:]).any()
    empty = Videos((2,), unlabeled=frozenset((0, 1)))
    with pytest.raises(ValueError, match="no frame .* has a label"):
        figures._evenly(empty, 1)


def test_figure_3_marks_what_was_admitted(predicted):
    image = np.asarray(figures.figure3(Config(), 0, width=800))
    assert image.shape[1] == 800
    admitted = (np.abs(image.astype(int) - figures.ADMITTED) < 8).all(-1)
    # Frames 0, 3, 6 and 9; the first has no similarity.
    rows = np.flatnonzero(admitted.any(1))
    upper, lower = admitted[: rows.max() // 2], admitted[rows.max() // 2 :]
    assert _blobs(upper) == 4 and _blobs(lower) == 3
    with pytest.raises(ValueError, match="2 validation videos"):
        figures.figure3(Config(), 2)
    Network.global_memory = False
    with pytest.raises(ValueError, match="no global memory"):
        figures.figure3(Config(), 0)


def _blobs(mask):
    """Dots that do not share a column."""
    columns = np.concatenate([[0], mask.any(0).astype(int)])
    return int((np.diff(columns) > 0).sum())
