"""Playing, pausing, seeking and changing a source, with frames that are numbers."""

import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest

from dmnet_jax.live.playback import Playback
from dmnet_jax.video.sources import Captured, SourceError


@dataclass(frozen=True)
class Numbers:
    """Frame `i` holds the number `i`; its clock starts at `origin`."""

    count: int = 10
    live: bool = False
    rate: float | None = 1000.0
    duration: float | None = None
    start: float = 0.0
    origin: float = 0.0
    closed: list = None  # pyright: ignore[reportAssignmentType]

    def __iter__(self):
        try:
            for index in range(round(self.start * 1000), self.count):
                image = np.full((1, 1, 3), index % 256, np.uint8)
                yield Captured(image, self.origin + index / 1000, str(index))
        finally:
            if self.closed is not None:
                self.closed.append(self.count)


def take(shots, count):
    """The next `count` frames, as (number, begins, seconds)."""
    taken = []
    while len(taken) < count:
        shot = next(shots)
        if shot is not None:
            taken.append((int(shot.captured.name), shot.begins, shot.seconds))
    return taken


def test_a_file_is_played_in_a_loop():
    taken = take(Playback(Numbers(3)).shots(), 7)
    assert [number for number, *_ in taken] == [0, 1, 2, 0, 1, 2, 0]
    assert [begins for _, begins, _ in taken] == [True, False, False] * 2 + [True]


def test_a_live_source_is_followed_in_real_time():
    playback = Playback(Numbers(10_000, live=True))
    shots = playback.shots()
    first = next(shot for shot in shots if shot)
    time.sleep(0.05)  # frames that are not read in time are dropped
    second = next(shot for shot in shots if shot)
    assert first.arrived is not None and second.arrived > first.arrived
    assert first.begins and not second.begins
    third = next(shot for shot in shots if shot)
    assert third.dropped > 0
    playback.stop()
    assert list(shots) == []


def test_pausing_holds_the_frame_and_lets_the_caller_work():
    playback = Playback(Numbers(100))
    shots = playback.shots()
    assert take(shots, 2)[-1][0] == 1
    playback.paused = True
    assert [next(shots) for _ in range(3)] == [None] * 3
    playback.paused = False
    assert take(shots, 2)[0][0] == 2


def test_the_first_frame_is_shown_even_if_paused():
    playback = Playback(Numbers(100, duration=0.1))
    playback.paused = True
    shots = playback.shots()
    assert take(shots, 1) == [(0, True, 0.0)]
    assert next(shots) is None
    playback.seek(0.05)
    assert take(shots, 1) == [(50, True, pytest.approx(0.05))]
    assert next(shots) is None


def test_seconds_count_from_the_first_frame_of_a_video_whose_clock_does_not():
    playback = Playback(Numbers(100, duration=0.1, origin=7.0))
    shots = playback.shots()
    assert take(shots, 2)[1][2] == pytest.approx(0.001)
    playback.seek(0.03)
    assert take(shots, 2)[1] == (31, False, pytest.approx(0.031))


def test_after_a_seek_the_video_starts_again_at_its_beginning():
    playback = Playback(Numbers(5, duration=0.005))
    playback.seek(0.003)
    assert [n for n, *_ in take(playback.shots(), 4)] == [3, 4, 0, 1]


@pytest.mark.parametrize("source", [Numbers(), Numbers(duration=1.0)])
def test_there_is_no_seeking_beyond_a_source(source):
    with pytest.raises(ValueError, match="no second 2"):
        Playback(source).seek(2)
    with pytest.raises(ValueError, match="no second -1"):
        Playback(source).seek(-1)


def test_another_source_is_opened_after_the_first_is_closed():
    closed = []
    playback = Playback(Numbers(100, closed=closed))
    shots = playback.shots()
    take(shots, 2)
    second = Numbers(7)
    playback.open(second)
    assert take(shots, 1) == [(0, True, 0.0)] and playback.source is second
    assert closed == [100]


def test_stopping_ends_the_frames():
    playback = Playback(Numbers(10_000))
    shots = playback.shots()
    take(shots, 1)
    threading.Timer(0.1, playback.stop).start()
    assert len(list(shots)) < 10_000 and playback.stopped


def test_an_error_of_the_source_is_raised():
    class Torn(Numbers):
        def __iter__(self):
            yield from super().__iter__()
            raise SourceError("torn")

    with pytest.raises(SourceError, match="torn"):
        list(Playback(Torn(2)).shots())
