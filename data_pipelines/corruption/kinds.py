"""The kinds of corruption, and the function that applies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from data_pipelines.corruption.covers import blood, occluder, smoke
from data_pipelines.corruption.fields import Frame
from data_pipelines.corruption.optics import defocus, glare, low_light, motion

Kind = Callable[[Frame, int, int, int], Frame]

_GRADED: Mapping[str, Kind] = MappingProxyType(
    {
        "defocus": defocus,
        "motion": motion,
        "glare": glare,
        "occluder": occluder,
        "smoke": smoke,
        "blood": blood,
        "low_light": low_light,
    }
)

UNGRADED = ("black", "frozen")
"""Kinds that replace the whole frame; their severity is 0."""

TRAINED = ("defocus", "motion", "glare", "occluder", *UNGRADED)
"""Kinds that may be used in training."""

UNSEEN = ("smoke", "blood", "low_light")
"""Kinds that are never used in training, to measure generalization."""

KINDS = TRAINED + UNSEEN
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(
    frame: Frame,
    kind: str,
    severity: int,
    *,
    seed: int,
    step: int = 0,
    before: Frame | None = None,
) -> Frame:
    """Corrupts one frame of a burst.

    Args:
        frame: uint8 `[H, W, 3]` RGB, of any size.
        kind: one of `KINDS`.
        severity: from 1 (slight) to 5 (almost everything is lost); ignored for
            `UNGRADED` kinds.
        seed: seed of the burst, 0 <= seed < 2**64, the same for all its frames.
        step: index of the frame in the burst, from 0.
        before: the last clean frame, which "frozen" repeats.

    Returns:
        A new array uint8 `[H, W, 3]`; for "frozen", `before` itself.

    Raises:
        ValueError: the kind or severity is unknown, or "frozen" lacks `before`.
    """
    check_kinds((kind,))
    if kind == "black":
        return np.zeros_like(frame)
    if kind == "frozen":
        if before is None:
            raise ValueError("a frozen frame repeats the one before; pass `before`")
        return before
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}; it must be 1 to 5")
    return _GRADED[kind](frame, severity, seed, step)


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Raises a ValueError unless `kinds` is a non-empty subset of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no corruption {kind!r}; one of {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds are {list(kinds)}; name at least one, each once")
