"""When a video is disturbed, by what, how badly and for how long."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from data_pipelines.corruption.kinds import KINDS, SEVERITIES, UNGRADED, check_kinds
from data_pipelines.synthetic.fields import generator

FIRST_CLEAN = 8
"""Clean frames before a video's first burst."""
GAPS = (10, 11, 12)
"""Clean frames between two bursts."""
LENGTHS = (1, 3, 6, 12)
"""Frames of a burst."""


class Burst(NamedTuple):
    """A run of corrupted frames.

    Attributes:
        kind: one of `KINDS`.
        severity: 1..5; 0 for kinds of `UNGRADED`.
        start: index of its first frame.
        length: how many frames.
        seed: of what it looks like.
    """

    kind: str
    severity: int
    start: int
    length: int
    seed: int

    @property
    def stop(self) -> int:
        """Index of the first clean frame after it."""
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
    """The bursts of one video.

    `FIRST_CLEAN` clean frames, then bursts with one of `GAPS` clean frames between
    them; at least one clean frame follows the last. Kinds, severities and lengths come
    from one endless sequence (a function of the seed) in which every kind comes once
    before any comes again, and every kind meets all pairs of severity and length
    before one is repeated, so they are balanced over a video and, with `first`, over
    many videos.

    Args:
        length: frames of the video.
        seed: 0 <= seed < 2**64.
        kinds: what may happen.
        severities: how badly.
        lengths: for how many frames.
        first: how many bursts of the sequence others have taken; `plan` counts.

    Returns:
        Bursts in order of time, none for a video of fewer than 10 frames.

    Raises:
        ValueError: an unknown kind, severity or length.
    """
    kinds, severities, lengths = tuple(kinds), tuple(severities), tuple(lengths)
    check_kinds(kinds)
    if not severities or not {*severities} <= {*SEVERITIES}:
        raise ValueError(f"severities are {list(severities)}; want some of 1 to 5")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths are {list(lengths)}; want 1 or more")
    found, start = [], FIRST_CLEAN
    for kind, severity, frames, gap, look in _endless(
        seed, first, kinds, severities, lengths
    ):
        if start + frames >= length:
            return tuple(found)
        found.append(Burst(kind, severity, start, frames, look))
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
    """The bursts of several videos, each seen several times.

    Args:
        lengths: frames of each video.
        seed: 0 <= seed < 2**64.
        passes: how often each video is seen, with other bursts each time.
        kinds: as in `bursts`.
        severities: as in `bursts`.
        burst_lengths: as in `bursts`.

    Returns:
        For each pass, for each video, its bursts.
    """
    taken, plans = 0, []
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
                    first=taken,
                )
            )
            taken += len(videos[-1])
        plans.append(tuple(videos))
    return tuple(plans)


def _endless(
    seed: int,
    first: int,
    kinds: tuple[str, ...],
    severities: tuple[int, ...],
    lengths: tuple[int, ...],
) -> Iterator[tuple[str, int, int, int, int]]:
    """(kind, severity, length, gap after it, seed) of burst `first` and all later."""
    rng = generator(seed, 0)
    severity_from, length_from = (
        rng.permutation(len(kinds)),
        rng.permutation(len(kinds)),
    )
    severity_order = rng.permutation(severities).tolist()
    length_order = rng.permutation(lengths).tolist()
    number = first
    while True:
        round_, place = divmod(number, len(kinds))
        # Each round has all kinds, in an order of its own.
        which = int(generator(seed, 1, round_).permutation(len(kinds))[place])
        length = length_order[(round_ + length_from[which]) % len(lengths)]
        # One step aside each time both orders are through, so that all pairs meet.
        turn = round_ + round_ // math.lcm(len(severities), len(lengths))
        severity = severity_order[(turn + severity_from[which]) % len(severities)]
        own = generator(seed, 2, number)
        gap, look = int(own.choice(GAPS)), int(own.integers(1 << 63))
        kind = kinds[which]
        yield kind, 0 if kind in UNGRADED else severity, length, gap, look
        number += 1
