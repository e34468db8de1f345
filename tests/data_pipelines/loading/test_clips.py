"""Sampling of the frames of a clip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.frames import Video
from data_pipelines.loading.clips import ClipSpec, sample_clip


def clip_of(frame, spec, seed=0, length=100):
    video = Video("v", tuple(str(i) for i in range(length)))
    return sample_clip(np.random.default_rng(seed), (video,), 0, frame, spec)


@settings(max_examples=200, deadline=None)
@given(
    frame=st.integers(0, 99),
    local=st.integers(0, 7),
    past=st.integers(0, 9),
    stride=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_clip_is_causal_and_follows_its_definition(frame, local, past, stride, seed):
    clip = clip_of(frame, ClipSpec(local, past, stride), seed)
    window = [frame - stride * back for back in reversed(range(local + 1))]
    assert clip.frames.tolist() == [max(index, 0) for index in window]
    assert clip.frames_mask.tolist() == [index >= 0 for index in window]
    assert clip.frames[-1] == frame and clip.frames_mask[-1]

    drawn = clip.past[clip.past_mask].tolist()
    assert clip.past.shape == clip.past_mask.shape == (past,)
    assert len(drawn) == min(past, frame)
    assert drawn == sorted(set(drawn))
    assert all(0 <= index < frame for index in drawn)
    assert not clip.past[~clip.past_mask].any()
    assert max(*clip.frames, *clip.past, 0) <= frame


def test_a_fraction_of_the_windows_repeats_the_current_frame():
    clips = [clip_of(50, ClipSpec(4, 0, still=0.25), seed) for seed in range(1000)]
    windows = [tuple(clip.frames.tolist()) for clip in clips]
    still, moving = (50,) * 5, (46, 47, 48, 49, 50)
    assert set(windows) == {still, moving}
    # 250 of 1000 draws, standard deviation 14.
    assert abs(windows.count(still) - 250) < 5 * 14
    early = clip_of(0, ClipSpec(4, 0, still=1.0))
    assert early.frames.tolist() == [0] * 5 and early.frames_mask.all()


def test_all_previous_frames_are_drawn_equally_often():
    counts = np.zeros(20)
    for seed in range(4000):
        counts[clip_of(20, ClipSpec(4, 4), seed).past] += 1
    # 4 of 20 in 4000 draws: 800 each, standard deviation 25.
    assert np.abs(counts - 800).max() < 5 * 25


def test_same_generator_state_gives_same_clip():
    first, again, other = (clip_of(50, ClipSpec(), seed) for seed in (3, 3, 4))
    assert first.past.tolist() == again.past.tolist() != other.past.tolist()


def test_single_frame_clip():
    clip = clip_of(7, ClipSpec(local_size=0, num_past=0))
    assert clip.frames.tolist() == [7] and clip.past.size == 0


@pytest.mark.parametrize("frame", [-1, 100])
def test_unknown_frames_are_refused(frame):
    with pytest.raises(IndexError, match="video v"):
        clip_of(frame, ClipSpec())


@pytest.mark.parametrize("values", [(-1, 4, 1), (4, -1, 1), (4, 4, 0)])
def test_impossible_specs_are_refused(values):
    with pytest.raises(ValueError, match="must be >="):
        ClipSpec(*values)
    with pytest.raises(ValueError, match="still=2: must be within 0..1"):
        ClipSpec(still=2)
