"""Corrupts the frames of a session, to demonstrate the effect of its memory."""

from typing import Any, NamedTuple

import numpy as np

from data_pipelines.corruption import KINDS, SEVERITIES, UNGRADED, corrupt

OFF = "none"

_TURN = 100
"""Frames after which a corruption runs backwards. Some kinds drift out of the image and
would then have no visible effect."""


class Choice(NamedTuple):
    """The selected corruption.

    Attributes:
        kind: one of `corruption.KINDS`, or `OFF`.
        severity: 1..5; stored but ignored for kinds without severity.
    """

    kind: str = OFF
    severity: int = 3

    @classmethod
    def of(cls, command: dict[str, Any]) -> "Choice | None":
        """Parses {"degrade": kind, "severity": int}; None if it is invalid."""
        if command.keys() != {"degrade", "severity"}:
            return None
        kind, severity = command["degrade"], command["severity"]
        # True and 3.0 compare equal to severities, so the type is checked as well.
        known = kind in (OFF, *KINDS) and severity in SEVERITIES
        return cls(kind, severity) if known and type(severity) is int else None

    @property
    def description(self) -> str:
        """What the viewer reads; empty if off."""
        if self.kind == OFF:
            return ""
        name = self.kind.replace("_", " ")
        return name if self.kind in UNGRADED else f"{name}, severity {self.severity}"


class Degrade:
    """Corrupts frames in one burst for as long as a kind is selected.

    Selecting another kind starts a new burst with a new seed. Changing the severity
    continues the same burst at another strength.

    Attributes:
        choice: corruption of the next frame.
    """

    def __init__(self) -> None:
        self.choice = Choice()
        self._seed = self._step = 0
        self._last: np.ndarray | None = None
        self._before: np.ndarray | None = None

    def choose(self, choice: Choice) -> None:
        """Starts a burst, changes its severity, or ends it."""
        if choice.kind != self.choice.kind:
            self._seed, self._step = self._seed + 1, 0
        self.choice = choice

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Corrupts a frame uint8 [H, W, 3]; returns the frame itself if off."""
        if self._step == 0:
            self._before = frame if self._last is None else self._last
        self._last = frame
        if self.choice.kind == OFF:
            return frame
        step = _TURN - abs(_TURN - self._step % (2 * _TURN))
        self._step += 1
        return corrupt(
            frame, *self.choice, seed=self._seed, step=step, before=self._before
        )
