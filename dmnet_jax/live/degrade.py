"""Spoils the frames that a session gets, so that its memory can be seen at work."""

from typing import Any, NamedTuple

import numpy as np

from data_pipelines.corruption import KINDS, SEVERITIES, UNGRADED, corrupt

OFF = "none"

_TURN = 100
"""Frames after which a disturbance goes back the way it came: some drift out of the
picture in the end, and then there would be nothing to see."""


class Choice(NamedTuple):
    """What is done to the frames.

    Attributes:
        kind: one of `corruption.KINDS`, or `OFF`.
        severity: 1..5; kept, but without meaning, for kinds that have none.
    """

    kind: str = OFF
    severity: int = 3

    @classmethod
    def of(cls, order: dict[str, Any]) -> "Choice | None":
        """Of {"degrade": kind, "severity": int}; None if it is anything else."""
        if order.keys() != {"degrade", "severity"}:
            return None
        kind, severity = order["degrade"], order["severity"]
        # True and 3.0 are among the severities too.
        known = kind in (OFF, *KINDS) and severity in SEVERITIES
        return cls(kind, severity) if known and type(severity) is int else None

    def told(self) -> str:
        """In words; empty when nothing is done."""
        if self.kind == OFF:
            return ""
        name = self.kind.replace("_", " ")
        return name if self.kind in UNGRADED else f"{name}, severity {self.severity}"


class Degrade:
    """Frames as they come, spoiled in one burst for as long as a kind is chosen.

    Another kind is another burst, which looks different each time; another severity
    is the same burst, thicker or thinner.

    Attributes:
        choice: for the next frame.
    """

    def __init__(self) -> None:
        self.choice = Choice()
        self._seed = self._step = 0
        self._last: np.ndarray | None = None
        self._before: np.ndarray | None = None

    def choose(self, choice: Choice) -> None:
        """Begins a burst, changes its severity, or ends it."""
        if choice.kind != self.choice.kind:
            self._seed, self._step = self._seed + 1, 0
        self.choice = choice

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """A frame uint8 [H, W, 3] as it is chosen; the frame itself when it is off."""
        if self._step == 0:
            self._before = frame if self._last is None else self._last
        self._last = frame
        if self.choice.kind == OFF:
            return frame
        there = _TURN - abs(_TURN - self._step % (2 * _TURN))
        self._step += 1
        return corrupt(
            frame, *self.choice, seed=self._seed, step=there, before=self._before
        )
