"""All kinds of disturbances, and one function that applies any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from data_pipelines.corruption.covers import blood, occluder, smoke
from data_pipelines.corruption.optics import defocus, glare, low_light, motion

Frame = NDArray[np.uint8]
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
"""Kinds that leave nothing of the frame at all; their severity is 0."""

TRAINED = ("defocus", "motion", "glare", "occluder", *UNGRADED)
"""Kinds that training may use."""

UNSEEN = ("smoke", "blood", "low_light")
"""Kinds that no training uses, so that scores on them say what carries over."""

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
    """One frame of a burst.

    Args:
        frame: uint8 `[H, W, 3]` RGB, of any size.
        kind: one of `KINDS`.
        severity: 1..5, from slight to nearly all lost; ignored by `UNGRADED` kinds.
        seed: of the burst, 0 <= seed < 2**64; all of a burst's frames share it.
        step: which frame of the burst, from 0.
        before: for "frozen", the last clean frame, which is shown again.

    Returns:
        A new uint8 `[H, W, 3]`; for "frozen", `before` itself.

    Raises:
        ValueError: no such kind or severity, or a frozen frame without `before`.
    """
    check_kinds((kind,))
    if kind == "black":
        return np.zeros_like(frame)
    if kind == "frozen":
        if before is None:
            raise ValueError("a frozen frame repeats the one before; give `before`")
        return before
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}; it must be 1 to 5")
    return _GRADED[kind](frame, severity, seed, step)


def check_kinds(kinds: tuple[str, ...]) -> None:
    """Raises a ValueError unless all `kinds` are known, once each, and at least one."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no corruption {kind!r}; one of {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds are {list(kinds)}; name at least one, each once")
