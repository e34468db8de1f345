"""Corrupts frames of training clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipelines.corruption.kinds import (
    SEVERITIES,
    TRAINED,
    check_kinds,
    corrupt,
)


class Corruption(NamedTuple):
    """Distribution of the corruptions of training clips.

    Attributes:
        probability: probability that a clip is corrupted.
        kinds: kinds of corruption to draw from.
    """

    probability: float
    kinds: tuple[str, ...] = TRAINED

    def draw(self, rng: np.random.Generator, length: int) -> NDArray[np.bool_]:
        """Draws which frames of a clip are corrupted, bool `[length]`.

        These are the only frame, or a run of frames without the first one, so that a
        memory starts with a clean frame.
        """
        where = np.zeros(length, bool)
        if rng.random() >= self.probability:
            return where
        if length == 1:
            return ~where
        start = int(rng.integers(1, length))
        where[start : int(rng.integers(start, length)) + 1] = True
        return where


def corrupt_clip(
    frames: NDArray[np.uint8],
    where: Sequence[bool] | NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = TRAINED,
    severities: Sequence[int] = SEVERITIES,
) -> NDArray[np.uint8]:
    """Corrupts frames of a clip; each run of consecutive frames is one burst.

    Args:
        frames: uint8 `[T, H, W, 3]` RGB, consecutive frames.
        where: bool `[T]`, which frames to corrupt.
        rng: the generator for kind, severity and appearance of each burst.
        kinds: kinds of corruption to draw from. A run that starts with the first frame
            is never "frozen", because there is no frame before it.
        severities: severities to draw from.

    Returns:
        A new array; other frames are unchanged.

    Raises:
        ValueError: a kind or severity is unknown, or "frozen" is the only kind for a
            run that starts with the first frame.
    """
    check_kinds(tuple(kinds))
    if len(where) != len(frames):
        raise ValueError(f"`where` has {len(where)} entries for {len(frames)} frames")
    result = frames.copy()
    kind, severity, seed, start = "", 0, 0, 0
    for i in np.flatnonzero(where).tolist():
        if i == 0 or not where[i - 1]:
            possible = [name for name in kinds if i or name != "frozen"]
            if not possible:
                raise ValueError("the first frame cannot be frozen; add another kind")
            kind = possible[int(rng.integers(len(possible)))]
            severity = int(severities[int(rng.integers(len(severities)))])
            seed, start = int(rng.integers(1 << 63)), i
        result[i] = corrupt(
            frames[i],
            kind,
            severity,
            seed=seed,
            step=i - start,
            before=frames[start - 1] if start else None,
        )
    return result
