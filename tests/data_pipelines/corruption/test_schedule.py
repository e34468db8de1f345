"""Schedules of bursts, corrupted sources, and corrupted clips."""

from collections import Counter

import numpy as np
import pytest

from data_pipelines.corruption import (
    FIRST_CLEAN,
    GAPS,
    KINDS,
    LENGTHS,
    SEVERITIES,
    TRAINED,
    UNGRADED,
    UNSEEN,
    Burst,
    Corrupted,
    bursts,
    corrupt,
    corrupt_clip,
    plan,
)
from tests.support.tiny_run import Videos

SOURCE = Videos((40, 26))


def test_every_kind_is_either_trained_or_unseen():
    assert {*TRAINED} | {*UNSEEN} == {*KINDS} and not {*TRAINED} & {*UNSEEN}
    assert {*UNSEEN} == {"smoke", "blood", "low_light"}


@pytest.mark.parametrize("seed", range(5))
def test_bursts_are_separated_by_clean_frames(seed):
    result = bursts(150, seed=seed)
    assert result == bursts(150, seed=seed) != bursts(150, seed=seed + 1)
    assert result[0].start == FIRST_CLEAN
    gaps = {b.start - a.stop for a, b in zip(result, result[1:], strict=False)}
    assert gaps <= {*GAPS}
    assert result[-1].stop < 150
    for burst in result:
        assert burst.kind in KINDS and burst.length in LENGTHS
        graded = burst.kind not in UNGRADED
        assert burst.severity in (SEVERITIES if graded else (0,))
    assert len({burst.seed for burst in result}) == len(result)


def test_a_short_video_has_no_bursts():
    assert bursts(FIRST_CLEAN + 1, seed=0, lengths=(1,)) == ()
    assert len(bursts(FIRST_CLEAN + 2, seed=0, lengths=(1,))) == 1


def test_videos_and_passes_share_one_balanced_sequence():
    """Kinds, and severities and lengths of each kind, occur equally often."""
    result = plan([150, 90, 200], seed=3, passes=12)
    assert len(result) == 12 and all(len(videos) == 3 for videos in result)
    everything = [burst for videos in result for each in videos for burst in each]
    assert len({burst.seed for burst in everything}) == len(everything)

    def spread(key, among=everything):
        count = Counter(map(key, among))
        return max(count.values()) - min(count.values())

    assert spread(lambda b: b.kind) <= 1
    for kind in KINDS:
        of_kind = [burst for burst in everything if burst.kind == kind]
        assert {b.length for b in of_kind} == {*LENGTHS}
        assert spread(lambda b: b.length, of_kind) <= 1
        if kind not in UNGRADED:
            assert spread(lambda b: b.severity, of_kind) <= 1
            pairs = [(b.severity, b.length) for b in of_kind]
            assert len(pairs) >= 20 and {*Counter(pairs[:20]).values()} == {1}
    # Also within one video.
    assert spread(lambda b: b.kind, result[0][0]) <= 1


@pytest.mark.parametrize("severities, lengths", [(4, 4), (2, 4), (4, 6), (5, 1)])
def test_all_pairs_of_severity_and_length_occur_before_one_is_repeated(
    severities, lengths
):
    result = bursts(
        4000,
        seed=0,
        kinds=("smoke",),
        severities=range(1, severities + 1),
        lengths=range(1, lengths + 1),
    )
    pairs = {(b.severity, b.length) for b in result[: severities * lengths]}
    assert len(pairs) == severities * lengths


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kinds": ("fog",)}, "no corruption 'fog'"),
        ({"kinds": ()}, "name at least one"),
        ({"severities": (0,)}, "use some of 1 to 5"),
        ({"lengths": (0, 3)}, "use 1 or more"),
    ],
)
def test_invalid_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bursts(50, seed=0, **options)


def test_a_source_corrupts_only_its_bursts():
    smoke, frozen = Burst("smoke", 4, 8, 3, 77), Burst("frozen", 0, 20, 2, 5)
    source = Corrupted(SOURCE, [(smoke, frozen), ()])
    assert source.classes == SOURCE.classes and source.videos == SOURCE.videos
    for video, info in enumerate(SOURCE.videos):
        for i in range(len(info.frames)):
            clean, result = SOURCE.image(video, i), source.image(video, i)
            np.testing.assert_array_equal(
                source.label(video, i), SOURCE.label(video, i)
            )
            burst = source.burst(video, i)
            if video == 0 and 8 <= i < 11:
                assert burst is smoke
                expected = corrupt(clean, "smoke", 4, seed=77, step=i - 8)
            elif video == 0 and 20 <= i < 22:
                assert burst is frozen
                expected = SOURCE.image(0, 19)
            else:
                assert burst is None
                expected = clean
            np.testing.assert_array_equal(result, expected)


def test_schedules_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 schedules for 2 videos"):
        Corrupted(SOURCE, [()])
    late = Burst("smoke", 1, 25, 3, 0)
    with pytest.raises(ValueError, match="video1: .* does not fit"):
        Corrupted(SOURCE, [(), (late,)])
    with pytest.raises(ValueError, match="video0: .* overlaps another burst"):
        Corrupted(SOURCE, [(late, late), ()])


def clip():
    return np.stack([SOURCE.image(0, i) for i in range(6)])


def test_each_run_of_corrupted_frames_is_one_burst():
    frames, where = clip(), np.array([0, 1, 1, 0, 1, 0], bool)
    result = corrupt_clip(frames, where, np.random.default_rng(1), kinds=("smoke",))
    again = corrupt_clip(frames, where, np.random.default_rng(1), kinds=("smoke",))
    np.testing.assert_array_equal(result, again)
    np.testing.assert_array_equal(frames, clip())
    np.testing.assert_array_equal(result[~where], frames[~where])
    rng = np.random.default_rng(1)
    for start, stop in ((1, 3), (4, 5)):
        rng.integers(1)
        severity = SEVERITIES[rng.integers(5)]
        seed = int(rng.integers(1 << 63))
        for i in range(start, stop):
            expected = corrupt(frames[i], "smoke", severity, seed=seed, step=i - start)
            np.testing.assert_array_equal(result[i], expected)


def test_a_frozen_run_of_a_clip_repeats_the_frame_before_it():
    frames, rng = clip(), np.random.default_rng(0)
    result = corrupt_clip(frames, [0, 0, 1, 1, 0, 0], rng, kinds=("frozen",))
    np.testing.assert_array_equal(result[2], frames[1])
    np.testing.assert_array_equal(result[3], frames[1])
    with pytest.raises(ValueError, match="first frame cannot be frozen"):
        corrupt_clip(frames, [1] + [0] * 5, rng, kinds=("frozen",))
    for _ in range(8):
        result = corrupt_clip(frames, [1] + [0] * 5, rng, kinds=("frozen", "black"))
        assert not result[0].any()
    with pytest.raises(ValueError, match="2 entries for 6 frames"):
        corrupt_clip(frames, [1, 0], rng)
