"""When videos are disturbed: the rules of schedules, sources and training clips."""

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


def test_trained_and_unseen_kinds_are_all_there_are():
    assert {*TRAINED} | {*UNSEEN} == {*KINDS} and not {*TRAINED} & {*UNSEEN}
    assert {*UNSEEN} == {"smoke", "blood", "low_light"}


@pytest.mark.parametrize("seed", range(5))
def test_clean_frames_come_first_between_and_last(seed):
    found = bursts(150, seed=seed)
    assert found == bursts(150, seed=seed) != bursts(150, seed=seed + 1)
    assert found[0].start == FIRST_CLEAN
    gaps = {b.start - a.stop for a, b in zip(found, found[1:], strict=False)}
    assert gaps <= {*GAPS}
    assert found[-1].stop < 150
    for burst in found:
        assert burst.kind in KINDS and burst.length in LENGTHS
        graded = burst.kind not in UNGRADED
        assert burst.severity in (SEVERITIES if graded else (0,))
    assert len({burst.seed for burst in found}) == len(found)


def test_a_short_video_has_none():
    assert bursts(FIRST_CLEAN + 1, seed=0, lengths=(1,)) == ()
    assert len(bursts(FIRST_CLEAN + 2, seed=0, lengths=(1,))) == 1


def test_videos_and_passes_share_one_balanced_sequence():
    """Every kind, and for every kind every severity and length, as often as others."""
    whole = plan([150, 90, 200], seed=3, passes=12)
    assert len(whole) == 12 and all(len(videos) == 3 for videos in whole)
    everything = [burst for videos in whole for each in videos for burst in each]
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
    # Within one video as well.
    assert spread(lambda b: b.kind, whole[0][0]) <= 1


@pytest.mark.parametrize("severities, lengths", [(4, 4), (2, 4), (4, 6), (5, 1)])
def test_all_pairs_of_severity_and_length_meet_before_one_is_repeated(
    severities, lengths
):
    found = bursts(
        4000,
        seed=0,
        kinds=("smoke",),
        severities=range(1, severities + 1),
        lengths=range(1, lengths + 1),
    )
    pairs = {(b.severity, b.length) for b in found[: severities * lengths]}
    assert len(pairs) == severities * lengths


@pytest.mark.parametrize(
    "options, said",
    [
        ({"kinds": ("fog",)}, "no corruption 'fog'"),
        ({"kinds": ()}, "name at least one"),
        ({"severities": (0,)}, "want some of 1 to 5"),
        ({"lengths": (0, 3)}, "want 1 or more"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        bursts(50, seed=0, **options)


def test_a_source_corrupts_its_bursts_and_nothing_else():
    smoke, frozen = Burst("smoke", 4, 8, 3, 77), Burst("frozen", 0, 20, 2, 5)
    source = Corrupted(SOURCE, [(smoke, frozen), ()])
    assert source.classes == SOURCE.classes and source.videos == SOURCE.videos
    for video, info in enumerate(SOURCE.videos):
        for i in range(len(info.frames)):
            clean, found = SOURCE.image(video, i), source.image(video, i)
            np.testing.assert_array_equal(
                source.label(video, i), SOURCE.label(video, i)
            )
            burst = source.burst(video, i)
            if video == 0 and 8 <= i < 11:
                assert burst is smoke
                wanted = corrupt(clean, "smoke", 4, seed=77, step=i - 8)
            elif video == 0 and 20 <= i < 22:
                assert burst is frozen
                wanted = SOURCE.image(0, 19)
            else:
                assert burst is None
                wanted = clean
            np.testing.assert_array_equal(found, wanted)


def test_schedules_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 schedules for 2 videos"):
        Corrupted(SOURCE, [()])
    late = Burst("smoke", 1, 25, 3, 0)
    with pytest.raises(ValueError, match="video1: .* does not fit"):
        Corrupted(SOURCE, [(), (late,)])
    with pytest.raises(ValueError, match="video0: .* meets another burst"):
        Corrupted(SOURCE, [(late, late), ()])


def clip():
    return np.stack([SOURCE.image(0, i) for i in range(6)])


def test_a_clip_is_corrupted_where_chosen_and_each_run_is_one_burst():
    frames, chosen = clip(), np.array([0, 1, 1, 0, 1, 0], bool)
    found = corrupt_clip(frames, chosen, np.random.default_rng(1), kinds=("smoke",))
    again = corrupt_clip(frames, chosen, np.random.default_rng(1), kinds=("smoke",))
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(frames, clip())
    np.testing.assert_array_equal(found[~chosen], frames[~chosen])
    rng = np.random.default_rng(1)
    for start, stop in ((1, 3), (4, 5)):
        rng.integers(1)
        severity = SEVERITIES[rng.integers(5)]
        seed = int(rng.integers(1 << 63))
        for i in range(start, stop):
            wanted = corrupt(frames[i], "smoke", severity, seed=seed, step=i - start)
            np.testing.assert_array_equal(found[i], wanted)


def test_a_frozen_run_of_a_clip_repeats_the_frame_before_it():
    frames, rng = clip(), np.random.default_rng(0)
    found = corrupt_clip(frames, [0, 0, 1, 1, 0, 0], rng, kinds=("frozen",))
    np.testing.assert_array_equal(found[2], frames[1])
    np.testing.assert_array_equal(found[3], frames[1])
    with pytest.raises(ValueError, match="first frame cannot be frozen"):
        corrupt_clip(frames, [1] + [0] * 5, rng, kinds=("frozen",))
    for _ in range(8):
        found = corrupt_clip(frames, [1] + [0] * 5, rng, kinds=("frozen", "black"))
        assert not found[0].any()
    with pytest.raises(ValueError, match="2 entries for 6 frames"):
        corrupt_clip(frames, [1, 0], rng)
