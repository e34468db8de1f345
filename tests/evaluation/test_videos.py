"""Whole videos in chunks, compared with the live step, and their counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dmnet_jax.evaluation import (
    CHUNK,
    NO_SIMILARITY,
    Scoring,
    calibrate,
    evaluate,
    predict_video,
)
from dmnet_jax.metrics import (
    confusion_matrix,
    flicker,
    frame_counts,
    normalized_surface_distance,
    summarize,
)
from dmnet_jax.models.protocol import Output, VideoSegmenter
from dmnet_jax.nn.resizing import resize
from tests.support.tiny_run import Videos, network, picture, shallow


@pytest.fixture(scope="module", autouse=True)
def shallow_network():
    with shallow():
        yield


def with_thresholds(confidence, similarity):
    thresholds = {
        "min_confidence": np.float32(confidence),
        "max_similarity": np.float32(similarity),
    }
    return {**network()[1], "thresholds": thresholds}


EVERYTHING = (-np.inf, np.inf)


@pytest.fixture(scope="module")
def live_step():
    model, _ = network()

    def step(variables, memory, frame):
        return model.apply(variables, memory, frame, method=type(model).step)

    return jax.jit(step)


def streamed(step, variables, video, length, *, seed=0, key_of=None):
    """The output of every frame, one step at a time with explicit memory."""
    model, _ = network()
    key = jax.random.fold_in(jax.random.key(seed), video if key_of is None else key_of)
    memory = model.init_memory(1, (64, 64), key)
    outputs = []
    for i in range(length):
        frame = picture(i, seed=video)[0][None]
        memory, output = step(variables, memory, frame)
        outputs.append(jax.device_get(output))
    return outputs


def assert_streams_equal(results, outputs):
    assert [r.frame for r in results] == list(range(len(outputs)))
    for result, output in zip(results, outputs, strict=True):
        label = np.asarray(resize(output.logits, (64, 64))[0].argmax(-1))
        assert result.label.dtype == np.uint8
        # Rounding may decide a pixel that lies exactly between two classes.
        assert (result.label != label).mean() < 2e-3
        np.testing.assert_allclose(result.confidence, output.confidence[0], rtol=1e-4)
        np.testing.assert_allclose(result.similarity, output.similarity[0], rtol=1e-3)
        assert result.admitted == bool(output.admitted[0])


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_chunks_equal_the_live_stream(live_step, length):
    variables = with_thresholds(*EVERYTHING)
    source = Videos((length,))
    results = list(predict_video(network()[0], variables, source, 0))
    assert_streams_equal(results, streamed(live_step, variables, 0, length))
    assert all(result.admitted for result in results)


def test_gate_decides_alike_in_chunks_and_live(live_step):
    """A threshold between the observed similarities admits some frames only."""
    measured = streamed(live_step, with_thresholds(*EVERYTHING), 0, 13)
    similarities = np.sort([float(output.similarity[0]) for output in measured[1:]])
    gap = np.diff(similarities).argmax()
    variables = with_thresholds(
        -np.inf, (similarities[gap] + similarities[gap + 1]) / 2
    )
    results = list(predict_video(network()[0], variables, Videos((13,)), 0))
    assert_streams_equal(results, streamed(live_step, variables, 0, 13))
    admitted = [result.admitted for result in results]
    assert admitted[0] and not all(admitted)


def test_counts_equal_the_metrics_of_the_predictions():
    source, results = Videos((12, 3), frozenset({1})), []
    model, _ = network()
    variables = with_thresholds(*EVERYTHING)
    evaluated = evaluate(
        model, variables, source, on_frame=lambda video, r: results.append((video, r))
    )
    assert len(results) == 15 and sum(r.truth is None for _, r in results) == 2
    labeled = [(video, r) for video, r in results if r.truth is not None]
    assert evaluated.counts.shape == (13, 3, 3)
    for i, (video, result) in enumerate(labeled):
        expected = frame_counts(result.label, picture(result.frame, seed=video)[1], 3)
        np.testing.assert_array_equal(evaluated.counts[i], expected)
        assert evaluated.videos[i] == f"video{video}"
        assert evaluated.frames[i] == f"f{result.frame}"
        assert evaluated.confidence[i] == result.confidence
    assert evaluated.score == summarize(evaluated.counts, protocol="global")["iou"]


class Brightness(VideoSegmenter):
    """A network without parameters or gate: classes are bands of mean brightness.

    Its memory counts frames; logits have a quarter of the input size.
    """

    num_classes: int = 3

    @nn.nowrap
    def init_memory(self, batch, size, key):
        return jnp.zeros(batch, jnp.int32)

    def step(self, memory, frame, *, active=None, train=False):
        memory, output = self(memory, frame[:, None])
        return memory, jax.tree.map(lambda x: x[:, 0], output)

    def __call__(self, memory, frames, *, train=False):
        batch, length, height, width, _ = frames.shape
        cells = frames.reshape(batch, length, height // 4, 4, width // 4, 4, 3)
        grey = cells.astype(jnp.float32).mean((3, 5, 6))[..., None]
        logits = -jnp.abs(grey - jnp.array([90.0, 120.0, 190.0]))
        gate = jnp.zeros((batch, length))
        return memory + length, Output(logits, gate, gate - jnp.inf, gate > 0)


@dataclasses.dataclass(frozen=True)
class LargeLabels(Videos):
    """Labels stored at three times the network's size; frame 2 has none."""

    def label(self, video, frame):
        label = super().label(video, frame)
        return None if label is None else label.repeat(3, 0).repeat(3, 1)


def by_hand(source, frame, *, repeat):
    """The authors' evaluation: logits repeated `repeat` times, nearest neighbor."""
    _, output = Brightness().apply({}, jnp.zeros(1), source.image(0, frame)[None, None])
    coarse = np.asarray(output.logits[0, 0].argmax(-1), np.uint8)
    return coarse.repeat(repeat, 0).repeat(repeat, 1)


@pytest.mark.parametrize(("score_at", "repeat"), [("label", 12), ("input", 4)])
def test_any_model_is_scored_at_the_chosen_size(score_at, repeat):
    """A model without gate or parameters; compared with direct calls of the metrics."""
    source, results = LargeLabels((CHUNK + 2,), frozenset({2})), []
    rules = Scoring(score_at, "nearest", tolerance_px=2)
    evaluated = evaluate(
        Brightness(),
        {"params": {"none": np.zeros(1)}},
        source,
        scoring=rules,
        on_frame=lambda _, result: results.append(result),
    )
    side = 16 * repeat
    assert evaluated.size == (side, side) and evaluated.scoring == rules
    labeled = [r for r in results if r.truth is not None]
    assert len(results) == CHUNK + 2 and len(labeled) == CHUNK + 1
    for i, result in enumerate(labeled):
        label = by_hand(source, result.frame, repeat=repeat)
        truth = picture(result.frame)[1]
        truth = truth if score_at == "input" else truth.repeat(3, 0).repeat(3, 1)
        np.testing.assert_array_equal(result.label, label)
        np.testing.assert_array_equal(result.truth, truth)
        np.testing.assert_array_equal(
            evaluated.counts[i], frame_counts(label, truth, 3)
        )
        for c in (1, 2):
            expected = normalized_surface_distance(label, truth, c, 2)
            np.testing.assert_allclose(evaluated.surface[i, c], expected)
    expected = sum(confusion_matrix(r.label, r.truth, 3) for r in labeled)
    np.testing.assert_array_equal(evaluated.confusion, expected)
    # The frame after the unlabeled one has no previous frame to compare with.
    assert evaluated.flicker[0].tolist() == evaluated.flicker[2].tolist() == [0, 0]
    tail = labeled[2:]
    changed, counted = evaluated.flicker[2:].sum(0)
    expected = flicker(
        np.stack([r.label for r in tail]), np.stack([r.truth for r in tail])
    )
    assert counted and changed / counted == expected
    assert np.isneginf(evaluated.similarity).all() and not evaluated.admitted.any()


def test_bilinear_is_the_default_and_differs_from_nearest():
    source = LargeLabels((1,))
    smooth, near = (
        next(predict_video(Brightness(), {}, source, 0, scoring=rules)).label
        for rules in (Scoring(), Scoring(enlarge="nearest"))
    )
    assert smooth.shape == near.shape == (192, 192)
    assert 0 < (smooth != near).mean() < 0.3
    _, output = Brightness().apply({}, jnp.zeros(1), source.image(0, 0)[None, None])
    np.testing.assert_array_equal(
        smooth, resize(output.logits[0], (192, 192))[0].argmax(-1)
    )


def test_videos_without_a_label_cannot_be_scored():
    source = Videos((2,), frozenset({0, 1}))
    with pytest.raises(ValueError, match="no frame of video0 has a label"):
        evaluate(Brightness(), {"params": {"none": np.zeros(1)}}, source)


def test_each_video_starts_from_an_empty_memory(live_step):
    model, _ = network()
    variables = with_thresholds(*EVERYTHING)
    both = list(predict_video(model, variables, Videos((12, 11)), 1))
    assert both[0].similarity == -np.inf
    assert_streams_equal(both, streamed(live_step, variables, 1, 11))
    # Another first video changes nothing in the second.
    result = evaluate(model, variables, Videos((2, 11)))
    second = result.videos == "video1"
    assert result.confidence[second].tolist() == [r.confidence for r in both]
    assert np.isneginf(result.similarity[[0, 2]]).all()


def test_calibration_is_the_mean_over_all_frames(live_step):
    """s is from distances between features of adjacent frames, r from entropies."""
    model, fresh = network()
    encode = jax.jit(
        lambda frames: model.apply(fresh, frames, method=type(model).encode).top,
    )
    r, s = [], []
    lengths = (12, 4)
    for video, length in enumerate(lengths):
        frames = [picture(i, seed=video)[0] for i in range(length)]
        # One shape, one program.
        tops = np.float64([encode(frame[None])[0] for frame in frames])
        s += (-np.sqrt((np.diff(tops, axis=0) ** 2).sum((1, 2, 3)))).tolist()
        for output in streamed(live_step, with_thresholds(*EVERYTHING), video, length):
            logits = np.float64(output.logits[0])
            p = np.exp(logits - logits.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            r.append((p * np.log(p)).sum(-1).mean())
    # Thresholds that admit nothing must not matter.
    measured = calibrate(model, with_thresholds(0, -1e9), Videos(lengths))
    np.testing.assert_allclose(measured["min_confidence"], np.mean(r), rtol=1e-4)
    np.testing.assert_allclose(measured["max_similarity"], np.mean(s), rtol=1e-3)
    assert {value.dtype for value in measured.values()} == {np.dtype(np.float32)}
    # Stills have no adjacent frames; the thresholds are still finite numbers.
    stills = calibrate(model, fresh, Videos((1, 1, 1)))
    assert stills["max_similarity"] == NO_SIMILARITY
    assert np.isfinite(stills["min_confidence"])
    mixed = calibrate(model, fresh, Videos((1, 4)))
    assert np.isfinite(mixed["max_similarity"]) and mixed["max_similarity"] < 0


def test_nothing_is_admitted_without_a_global_memory():
    model, variables = network()
    alone = model.clone(local="none", global_memory=False)
    result = evaluate(alone, variables, Videos((3,)))
    assert not result.admitted.any() and np.all(np.isneginf(result.similarity))


@pytest.mark.parametrize(
    "rule", [{"tolerance_px": np.nan}, {"tolerance_px": -1.0}, {"seed": -1}]
)
def test_invalid_rules_are_refused(rule):
    with pytest.raises(ValueError, match=next(iter(rule))):
        evaluate(Brightness(), {}, Videos((3,)), scoring=Scoring(**rule))
