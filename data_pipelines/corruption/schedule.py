"""Schedules of corruption bursts in videos."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_pipelines.corruption.kinds import KINDS, SEVERITIES, UNGRADED, check_kinds
from data_pipelines.synthetic.fields import generator

FIRST_CLEAN = 8
"""Number of clean frames before the first burst of a video."""
GAPS = (10, 11, 12)
"""Possible numbers of clean frames between two bursts."""
LENGTHS = (1, 3, 6, 12)
"""Possible numbers of frames in a burst."""


class Burst(NamedTuple):
    """A run of corrupted frames.

    Attributes:
        kind: one of `KINDS`.
        severity: 1..5; 0 for `UNGRADED` kinds.
        start: index of the first frame.
        length: number of frames.
        seed: seed of its appearance.
    """

    kind: str
    severity: int
    start: int
    length: int
    seed: int

    @property
    def stop(self) -> int:
        """Index of the first clean frame after the burst."""
        return self.start + self.length


def bursts(
    length: int,
    *,
    seed: int,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[int] = SEVERITIES,
    lengths: Sequence[int] = LENGTHS,
    first: int = 0,
) -> tuple[Burst, ...]:
    """Schedules the bursts of a video.

    A video has `FIRST_CLEAN` clean frames, then bursts that are separated by one of
    `GAPS` clean frames, and at least one clean frame at the end. Kinds, severities and
    lengths are taken from an endless sequence that is determined by the seed. In it,
    every kind occurs once before any is repeated, and for every kind all pairs of
    severity and length occur before any is repeated. They are therefore balanced over a
    video and, with `first`, over several videos.

    Args:
        length: frames of the video.
        seed: 0 <= seed < 2**64.
        kinds: kinds to use.
        severities: severities to use.
        lengths: numbers of frames to use.
        first: number of bursts to skip, which other videos use; see `plan`.

    Returns:
        Bursts in order of time; none for a video of fewer than 10 frames.

    Raises:
        ValueError: a kind, severity or length is invalid.
    """
    kinds, severities, lengths = tuple(kinds), tuple(severities), tuple(lengths)
    check_kinds(kinds)
    if not severities or not {*severities} <= {*SEVERITIES}:
        raise ValueError(f"severities are {list(severities)}; use some of 1 to 5")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths are {list(lengths)}; use 1 or more")
    result, start = [], FIRST_CLEAN
    for kind, severity, frames, gap, burst_seed in _endless(
        seed, first, kinds, severities, lengths
    ):
        if start + frames >= length:
            return tuple(result)
        result.append(Burst(kind, severity, start, frames, burst_seed))
        start += frames + gap
    raise AssertionError("the sequence is endless")


def plan(
    lengths: Sequence[int],
    *,
    seed: int,
    passes: int = 1,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[int] = SEVERITIES,
    burst_lengths: Sequence[int] = LENGTHS,
) -> tuple[tuple[tuple[Burst, ...], ...], ...]:
    """Schedules the bursts of several videos, in several passes over them.

    Args:
        lengths: frames of each video.
        seed: 0 <= seed < 2**64.
        passes: number of passes; each has different bursts.
        kinds: see `bursts`.
        severities: see `bursts`.
        burst_lengths: the `lengths` of `bursts`.

    Returns:
        The bursts by pass and video.
    """
    count, plans = 0, []
    for _ in range(passes):
        videos = []
        for length in lengths:
            videos.append(
                bursts(
                    length,
                    seed=seed,
                    kinds=kinds,
                    severities=severities,
                    lengths=burst_lengths,
                    first=count,
                )
            )
            count += len(videos[-1])
        plans.append(tuple(videos))
    return tuple(plans)


def _endless(
    seed: int,
    first: int,
    kinds: tuple[str, ...],
    severities: tuple[int, ...],
    lengths: tuple[int, ...],
) -> Iterator[tuple[str, int, int, int, int]]:
    """Yields (kind, severity, length, gap, seed) of the bursts from `first` on."""
    rng = generator(seed, 0)
    severity_offsets = rng.permutation(len(kinds))
    length_offsets = rng.permutation(len(kinds))
    severity_order = rng.permutation(severities).tolist()
    length_order = rng.permutation(lengths).tolist()
    for number in itertools.count(first):
        # Each round has all kinds, in a different order.
        round_, position = divmod(number, len(kinds))
        k = int(generator(seed, 1, round_).permutation(len(kinds))[position])
        length = length_order[(round_ + length_offsets[k]) % len(lengths)]
        # An additional step after every common period of both orders, so that all pairs
        # of severity and length occur.
        turn = round_ + round_ // math.lcm(len(severities), len(lengths))
        severity = severity_order[(turn + severity_offsets[k]) % len(severities)]
        rng = generator(seed, 2, number)
        gap, burst_seed = int(rng.choice(GAPS)), int(rng.integers(1 << 63))
        kind = kinds[k]
        yield kind, 0 if kind in UNGRADED else severity, length, gap, burst_seed
