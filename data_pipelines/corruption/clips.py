"""Corrupts frames of training clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipelines.corruption.fields import Frame
from data_pipelines.corruption.kinds import (
    SEVERITIES,
    TRAINED,
    UNGRADED,
    check_kinds,
    corrupt,
)


class Corruption(NamedTuple):
    """Distribution of the corruptions of training clips.

    Attributes:
        probability: probability that a clip is corrupted.
        kinds: kinds of corruption to draw from.
        layers: number of corruptions, one on top of another, on a corrupted frame.
    """

    probability: float
    kinds: tuple[str, ...] = TRAINED
    layers: int = 1

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


class Layer(NamedTuple):
    """One corruption of a burst; see `corrupt` for the fields."""

    kind: str
    severity: int
    seed: int


def draw_layers(
    rng: np.random.Generator,
    kinds: Sequence[str],
    severities: Sequence[int] = SEVERITIES,
    count: int = 1,
) -> tuple[Layer, ...]:
    """Draws the corruptions of a burst, the lowest first.

    All but the lowest have a severity. A black frame has no other layer, and neither
    have frames if all `kinds` are `UNGRADED`.

    Args:
        rng: the generator.
        kinds: kinds to draw from.
        severities: severities to draw from.
        count: number of layers.
    """
    layers: tuple[Layer, ...] = ()
    possible = list(kinds)
    while possible and len(layers) < count:
        kind = possible[int(rng.integers(len(possible)))]
        severity = int(severities[int(rng.integers(len(severities)))])
        layers += (Layer(kind, severity, int(rng.integers(1 << 63))),)
        possible = [kind for kind in kinds if kind not in UNGRADED]
        if layers[0].kind == "black":
            break
    return layers


def corrupt_layers(
    frame: Frame, layers: Sequence[Layer], *, step: int = 0, before: Frame | None = None
) -> Frame:
    """Applies the corruptions of a burst to one of its frames.

    Args:
        frame: uint8 `[H, W, 3]` RGB.
        layers: the corruptions, the lowest first.
        step: index of the frame in the burst, from 0.
        before: the last clean frame, which "frozen" repeats.

    Raises:
        ValueError: see `corrupt`.
    """
    for kind, severity, seed in layers:
        frame = corrupt(frame, kind, severity, seed=seed, step=step, before=before)
    return frame


def corrupt_clip(
    frames: NDArray[np.uint8],
    where: Sequence[bool] | NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = TRAINED,
    severities: Sequence[int] = SEVERITIES,
    layers: int = 1,
) -> NDArray[np.uint8]:
    """Corrupts frames of a clip; each run of consecutive frames is one burst.

    Args:
        frames: uint8 `[T, H, W, 3]` RGB, consecutive frames.
        where: bool `[T]`, which frames to corrupt.
        rng: the generator for kind, severity and appearance of each burst.
        kinds: kinds of corruption to draw from. A run that starts with the first frame
            is never "frozen", because there is no frame before it.
        severities: severities to draw from.
        layers: see `Corruption`.

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
    burst: tuple[Layer, ...] = ()
    start = 0
    for i in np.flatnonzero(where).tolist():
        if i == 0 or not where[i - 1]:
            possible = [name for name in kinds if i or name != "frozen"]
            if not possible:
                raise ValueError("the first frame cannot be frozen; add another kind")
            burst, start = draw_layers(rng, possible, severities, layers), i
        before = frames[start - 1] if start else None
        result[i] = corrupt_layers(frames[i], burst, step=i - start, before=before)
    return result
