"""Corruption of training clips: which frames of a batch change, and by what."""

import numpy as np
import pytest

from data_pipelines.corruption import (
    SEVERITIES,
    TRAINED,
    UNGRADED,
    Corruption,
    corrupt,
    corrupt_clip,
    corrupt_layers,
    draw_layers,
)
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


FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3)).astype(np.uint8)


def test_layers_lie_on_top_of_one_another():
    where, kinds = [0, 1, 1, 0], ("glare", "defocus")
    result = corrupt_clip(
        FRAMES, where, np.random.default_rng(3), kinds=kinds, layers=2
    )
    first, second = draw_layers(np.random.default_rng(3), kinds, count=2)
    for step, frame in enumerate(FRAMES[1:3]):
        for kind, severity, seed in (first, second):
            frame = corrupt(frame, kind, severity, seed=seed, step=step)
        np.testing.assert_array_equal(result[1 + step], frame)
    np.testing.assert_array_equal(result[[0, 3]], FRAMES[[0, 3]])


def test_only_the_lowest_layer_replaces_the_frame():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        layers = draw_layers(rng, TRAINED, count=2)
        assert len(layers) == (1 if layers[0].kind == "black" else 2)
        assert all(layer.kind not in UNGRADED for layer in layers[1:])
        assert all(layer.severity in SEVERITIES for layer in layers)
        seen.add(tuple(layer.kind for layer in layers))
    graded = len(TRAINED) - len(UNGRADED)
    # Any graded kind, or "frozen", below any graded kind; or black alone.
    assert len(seen) == graded * graded + graded + 1


@pytest.mark.parametrize("kinds", [("black",), ("frozen",), UNGRADED])
def test_kinds_without_severity_have_one_layer(kinds):
    assert len(draw_layers(np.random.default_rng(0), kinds, count=3)) == 1


def test_a_frozen_frame_can_be_corrupted():
    layers = draw_layers(np.random.default_rng(0), ("frozen", "glare"), count=2)
    layers = (layers[0]._replace(kind="frozen"), layers[1]._replace(kind="glare"))
    result = corrupt_layers(FRAMES[2], layers, step=1, before=FRAMES[0])
    _, (kind, severity, seed) = layers
    expected = corrupt(FRAMES[0], kind, severity, seed=seed, step=1)
    np.testing.assert_array_equal(result, expected)


def test_a_loader_corrupts_with_all_layers():
    spec = ClipSpec(local_size=0, num_past=0)
    one = make(spec=spec, corruption=Corruption(1.0, ("defocus",)))
    two = make(spec=spec, corruption=Corruption(1.0, ("defocus",), layers=2))
    # Each defocus removes detail.
    detail = [
        np.abs(np.diff(loader.batch(0)["frames"].astype(float), axis=2)).sum()
        for loader in (one, two)
    ]
    assert detail[1] < 0.9 * detail[0]
