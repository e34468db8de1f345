import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmnet_jax.metrics import (
    PROTOCOLS,
    confusion_matrix,
    frame_counts,
    summarize,
    ternaus_validation,
)

CLASSES = 4
SIZE = (5, 7)
FOREGROUND = range(1, CLASSES)


@st.composite
def videos(draw, max_frames=5, ignored=True, foreground=False):
    """Predictions and labels [T, H, W]: many classes absent, predictions half right."""
    frames = draw(st.integers(1, max_frames))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.zeros((frames, *SIZE), np.uint8)
    predictions = np.zeros((frames, *SIZE), np.uint8)
    for t in range(frames):
        present = rng.random(CLASSES) < 0.5
        present[0] = True
        if foreground:
            present[rng.integers(1, CLASSES)] = True
        drawn = np.flatnonzero(present)
        labels[t] = rng.choice(drawn, SIZE)
        if foreground:
            labels[t, 0] = drawn[-1]
        guesses = np.flatnonzero(rng.random(CLASSES) < 0.6)
        guess = rng.choice(guesses, SIZE) if len(guesses) else labels[t]
        predictions[t] = np.where(rng.random(SIZE) < 0.6, labels[t], guess)
        if ignored and rng.random() < 0.3:
            labels[t][rng.random(SIZE) < 0.3] = 255
    return predictions, labels


def table_of(predictions, labels):
    pairs = zip(predictions, labels, strict=True)
    return np.stack([frame_counts(p, g, CLASSES) for p, g in pairs])


# The reference: the definitions as sets of pixels and loops, without counts.


def pixels(picture, label, class_id):
    return {
        place
        for place in np.ndindex(picture.shape)
        if picture[place] == class_id and label[place] != 255
    }


def mean(values):
    return sum(values) / len(values) if values else math.nan


def reference(predictions, labels, protocol, score, absent="skip"):
    def ratio(p, g, extra=0.0):
        if score == "iou":
            return (len(p & g) + extra) / (len(p | g) + extra)
        return (2 * len(p & g) + extra) / (len(p) + len(g) + extra)

    frames = []
    for picture, label in zip(predictions, labels, strict=True):
        if all(label[place] == 255 for place in np.ndindex(label.shape)):
            continue
        frames.append(
            [(pixels(picture, label, c), pixels(label, label, c)) for c in FOREGROUND]
        )
    if protocol == "ternaus":
        scores = []
        for frame in frames:
            of_class = [ratio(p, g, 1e-15) for p, g in frame if g]
            clean = not any(p for p, g in frame)
            scores.append(mean(of_class) if of_class else float(clean))
        return mean(scores)
    if protocol in ("mf_tapnet", "challenge", "stswincl"):
        scores = [mean([ratio(p, g) for p, g in f if g]) for f in frames]
        return mean([s for s in scores if not math.isnan(s)])
    if protocol == "isi":
        scores = [mean([ratio(p, g) for p, g in f if p or g]) for f in frames]
        return mean([s for s in scores if not math.isnan(s)])
    of_class = []
    for k in range(CLASSES - 1):
        column = [f[k] for f in frames]
        if protocol == "dmnet":
            score_k = mean([ratio(p, g) for p, g in column if len(g) > 10])
        elif protocol == "mciou":
            score_k = mean([ratio(p, g) for p, g in column if p or g])
            if math.isnan(score_k) and absent == "zero" and frames:
                score_k = 0.0
        elif any(g for p, g in column):
            marked = [{(i, *x) for x in p} for i, (p, g) in enumerate(column)]
            actual = [{(i, *x) for x in g} for i, (p, g) in enumerate(column)]
            score_k = ratio(set().union(*marked), set().union(*actual))
        else:
            score_k = math.nan
        of_class.append(score_k)
    return mean([s for s in of_class if not math.isnan(s)])


def test_metrics_load_numpy_alone():
    code = (
        "import sys; import dmnet_jax.metrics, dmnet_jax.video.overlay; "
        "assert not {'jax', 'flax', 'scipy', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(videos())
@settings(max_examples=50, deadline=None)
def test_counts_equal_set_sizes(video):
    for picture, label in zip(*video, strict=True):
        counts = frame_counts(picture, label, CLASSES)
        assert counts.dtype == np.int64
        for c in range(CLASSES):
            p, g = pixels(picture, label, c), pixels(label, label, c)
            assert counts[c].tolist() == [len(p & g), len(p), len(g)]
        assert confusion_matrix(picture, label, CLASSES).sum() == (label != 255).sum()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(videos())
@settings(max_examples=40, deadline=None)
def test_protocols_equal_their_definitions(protocol, video):
    summary = summarize(table_of(*video), protocol=protocol)
    for score in ("iou", "dice"):
        expected = reference(video[0], video[1], protocol, score)
        np.testing.assert_allclose(summary[score], expected, rtol=1e-12, atol=1e-14)


@given(videos())
@settings(max_examples=40, deadline=None)
def test_mciou_can_count_absent_classes_as_zero(video):
    summary = summarize(table_of(*video), protocol="mciou", absent="zero")
    expected = reference(video[0], video[1], "mciou", "iou", absent="zero")
    np.testing.assert_allclose(summary["iou"], expected, rtol=1e-12)
    skipped = summarize(table_of(*video), protocol="mciou")["iou"]
    assert math.isnan(skipped) or summary["iou"] <= skipped + 1e-12


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(videos(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_order_of_frames_does_not_matter(protocol, video, random):
    counts = table_of(*video)
    order = list(range(len(counts)))
    random.shuffle(order)
    one = summarize(counts, protocol=protocol)
    other = summarize(counts[order], protocol=protocol)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-12)


@given(videos(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_global_adds_up_over_any_split(video, cut):
    counts = table_of(*video)
    whole = summarize(counts, protocol="global")
    shards = np.stack([counts[:cut].sum(0), counts[cut:].sum(0)])
    parts = summarize(shards, protocol="global")
    for name in ("iou", "dice", "iou_per_class", "dice_per_class"):
        np.testing.assert_array_equal(parts[name], whole[name])
    pairs = zip(*video, strict=True)
    matrix = np.sum([confusion_matrix(p, g, CLASSES) for p, g in pairs], axis=0)
    np.testing.assert_array_equal(matrix.diagonal(), counts.sum(0)[:, 0])


@given(videos(), st.integers(0, SIZE[0]), st.integers(0, SIZE[1]))
@settings(max_examples=30, deadline=None)
def test_counts_of_parts_of_an_image_add_up(video, row, column):
    for picture, label in zip(*video, strict=True):
        pieces = [
            frame_counts(picture[rows, columns], label[rows, columns], CLASSES)
            for rows in (slice(row), slice(row, None))
            for columns in (slice(column), slice(column, None))
        ]
        whole = frame_counts(picture, label, CLASSES)
        np.testing.assert_array_equal(sum(pieces), whole)


@pytest.mark.parametrize("protocol", ["ternaus", "mf_tapnet", "isi"])
@given(videos(), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_means_over_frames_merge_by_frame_counts(protocol, video, cut):
    """Scores of parts, weighted by their scored frames, give the total score."""
    counts = table_of(*video)
    total, frames = 0.0, 0
    for part in (counts[:cut], counts[cut:]):
        scores = [summarize(frame[None], protocol=protocol)["iou"] for frame in part]
        number = np.count_nonzero(~np.isnan(scores))
        if number:
            total += number * summarize(part, protocol=protocol)["iou"]
            frames += number
    expected = total / frames if frames else math.nan
    actual = summarize(counts, protocol=protocol)["iou"]
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(videos(foreground=True))
@settings(max_examples=15, deadline=None)
def test_perfect_scores_one(protocol, video):
    labels = np.repeat(np.repeat(video[1], 4, axis=1), 4, axis=2)
    summary = summarize(table_of(labels % 255, labels), protocol=protocol)
    for score in ("iou", "dice"):
        np.testing.assert_allclose(summary[score], 1, rtol=1e-12)
        scores = summary[f"{score}_per_class"]
        np.testing.assert_allclose(scores[~np.isnan(scores)], 1, rtol=1e-12)


@given(videos(foreground=True, ignored=False))
@settings(max_examples=30, deadline=None)
def test_ternaus_is_mf_tapnet_without_empty_frames(video):
    counts = table_of(*video)
    ternaus = summarize(counts, protocol="ternaus")
    tapnet = summarize(counts, protocol="mf_tapnet")
    for name in ("iou", "dice"):
        np.testing.assert_allclose(ternaus[name], tapnet[name], rtol=1e-12, atol=1e-14)


@given(videos())
@settings(max_examples=40, deadline=None)
def test_isi_never_exceeds_challenge(video):
    counts = table_of(*video)
    challenge = summarize(counts, protocol="challenge")
    isi = summarize(counts, protocol="isi")
    assume(not math.isnan(challenge["iou"]))
    assert isi["iou"] <= challenge["iou"] + 1e-12
    assert isi["dice"] <= challenge["dice"] + 1e-12


@given(videos(ignored=False))
@settings(max_examples=30, deadline=None)
def test_iou_never_exceeds_dice(video):
    for protocol in PROTOCOLS:
        summary = summarize(table_of(*video), protocol=protocol)
        if not math.isnan(summary["iou"]):
            assert 0 <= summary["iou"] <= summary["dice"] + 1e-12 <= 1 + 2e-12


def test_predicting_an_absent_class_is_penalized_only_by_protocols_that_count_it():
    labels = np.zeros((2, 12, 12), np.uint8)
    labels[0, :6], labels[1, 6:] = 1, 2
    clean = labels.copy()
    clean[:, 5:7, :3] = 0
    painted = clean.copy()
    painted[0, 9:, 9:] = 2
    before, after = table_of(clean, labels), table_of(painted, labels)
    for protocol in PROTOCOLS:
        old = summarize(before, protocol=protocol)
        new = summarize(after, protocol=protocol)
        for score in ("iou", "dice"):
            if protocol in ("isi", "mciou", "global"):
                assert new[score] < old[score], protocol
            else:
                assert new[score] == old[score], protocol


def test_protocols_by_hand():
    # Class 1: IoU 1/2 in frame 0, absent in frame 1. Class 2: never labeled, 12
    # pixels predicted in frame 1, which has no foreground.
    counts = np.array(
        [
            [[10, 10, 15], [5, 10, 5], [0, 0, 0]],
            [[88, 88, 100], [0, 0, 0], [0, 12, 0]],
        ]
    )
    expected = {
        "ternaus": (0.5 + 0) / 2,
        "mf_tapnet": 0.5,
        "challenge": 0.5,
        "stswincl": 0.5,
        "dmnet": math.nan,
        "isi": (0.5 + 0) / 2,
        "mciou": (0.5 + 0) / 2,
        "global": 0.5,
    }
    assert expected.keys() == PROTOCOLS.keys()
    for protocol, iou in expected.items():
        summary = summarize(counts, protocol=protocol)
        np.testing.assert_allclose(summary["iou"], iou, rtol=1e-12, atol=1e-14)
    summary = summarize(counts, protocol="global")
    np.testing.assert_allclose(summary["iou_per_class"], [98 / 115, 0.5, np.nan])
    np.testing.assert_array_equal(summary["frames_per_class"], [2, 1, 0])
    isi = summarize(counts, protocol="isi")
    np.testing.assert_allclose(isi["iou_per_class"][1:], [0.5, 0])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_to_score_is_nan_not_zero(protocol):
    unscored = np.zeros((3, CLASSES, 3), np.int64)
    for counts in (unscored, unscored[:0]):
        summary = summarize(counts, protocol=protocol)
        assert math.isnan(summary["iou"]) and math.isnan(summary["dice"])
        assert np.isnan(summary["iou_per_class"]).all()
    # A frame of background only is scored by TernausNet's rule alone.
    unscored[:, 0] = 35
    score = summarize(unscored, protocol=protocol)["iou"]
    assert score == 1 if protocol == "ternaus" else math.isnan(score)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_without_a_scored_pixel_change_nothing(protocol):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (3, 12, 12))
    predictions = np.where(rng.random(labels.shape) < 0.7, labels, 0)
    counts = table_of(predictions, labels)
    longer = np.insert(counts, 1, 0, axis=0)
    one, other = (summarize(c, protocol=protocol) for c in (counts, longer))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)


def test_training_time_score_is_inflated_and_labeled_as_such():
    label = np.zeros((10, 10), np.uint8)
    label[:2] = 1
    prediction = np.zeros_like(label)
    prediction[1:9] = 1
    matrix = confusion_matrix(prediction, label, CLASSES)
    with pytest.warns(UserWarning, match="inflated"):
        summary = ternaus_validation(matrix)
    # 10 of 20 pixels missed and 70 painted on tissue, and still: perfect.
    assert summary["iou_per_class"][1] == 1
    np.testing.assert_allclose(summary["iou"], 1 / 3)
    counts = frame_counts(prediction, label, CLASSES)[None]
    np.testing.assert_allclose(summarize(counts, protocol="global")["iou"], 10 / 90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for protocol in PROTOCOLS:
            summarize(counts, protocol=protocol)
    with pytest.raises(ValueError, match="ternaus_validation"):
        summarize(counts, protocol="ternaus_validation")


def test_mistakes_are_reported():
    label = np.zeros((4, 5), np.uint8)
    wrong = label.copy()
    wrong[2, 3] = 9
    with pytest.raises(ValueError, match="prediction is 9 at row 2, column 3"):
        frame_counts(wrong, label, CLASSES)
    with pytest.raises(ValueError, match="label is 9 at row 2, column 3"):
        frame_counts(label, wrong, CLASSES)
    with pytest.raises(ValueError, match="do not match"):
        frame_counts(label, label[1:], CLASSES)
    with pytest.raises(ValueError, match="integers"):
        frame_counts(label * 0.5, label, CLASSES)
    counts = frame_counts(label, label, CLASSES)[None]
    with pytest.raises(ValueError, match="unknown protocol 'miou'"):
        summarize(counts, protocol="miou")
    with pytest.raises(ValueError, match="absent"):
        summarize(counts, protocol="mciou", absent="none")  # pyright: ignore
    with pytest.raises(ValueError, match="must be .frames"):
        summarize(counts[0], protocol="isi")
    counts[0, 1] = 3, 2, 3
    with pytest.raises(ValueError, match="frame 0, class 1"):
        summarize(counts, protocol="isi")
    with pytest.raises(ValueError, match="confusion"):
        ternaus_validation(counts)
