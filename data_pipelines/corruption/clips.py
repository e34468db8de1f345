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
    """How training clips are corrupted.

    Attributes:
        probability: of a clip to be corrupted: a burst in it, or its only frame.
        kinds: what may happen.
    """

    probability: float
    kinds: tuple[str, ...] = TRAINED

    def draw(self, rng: np.random.Generator, length: int) -> NDArray[np.bool_]:
        """Which frames of a clip of `length` are corrupted, bool `[length]`.

        The only frame, or a run that does not include the first: a memory begins with
        a clean frame.
        """
        chosen = np.zeros(length, bool)
        if rng.random() >= self.probability:
            return chosen
        if length == 1:
            return ~chosen
        start = int(rng.integers(1, length))
        chosen[start : int(rng.integers(start, length)) + 1] = True
        return chosen


def corrupt_clip(
    frames: NDArray[np.uint8],
    chosen: Sequence[bool] | NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = TRAINED,
    severities: Sequence[int] = SEVERITIES,
) -> NDArray[np.uint8]:
    """The clip with each run of chosen frames corrupted as one burst.

    Args:
        frames: uint8 `[T, H, W, 3]` RGB, consecutive.
        chosen: bool `[T]`, which frames are corrupted.
        rng: kind, severity and look of each run are drawn from it.
        kinds: what may happen. A run that begins the clip is never frozen: there is no
            frame before it.
        severities: how badly.

    Returns:
        A new array; frames that are not chosen are equal bit for bit.

    Raises:
        ValueError: an unknown kind or severity, or only "frozen" for a run that begins
            the clip.
    """
    check_kinds(tuple(kinds))
    if len(chosen) != len(frames):
        raise ValueError(f"chosen has {len(chosen)} entries for {len(frames)} frames")
    result = frames.copy()
    kind, severity, seed, start = "", 0, 0, 0
    for i in np.flatnonzero(chosen).tolist():
        if i == 0 or not chosen[i - 1]:
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
