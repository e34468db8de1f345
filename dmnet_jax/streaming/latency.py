"""Step latency statistics in constant memory."""

from typing import Any

import numpy as np

KEPT = 10_000


class Latency:
    """Latencies of the last `KEPT` steps, and counts over all steps.

    Args:
        deadline: seconds a step may take. None: no deadline.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.count = 0
        self.misses = 0
        self._longest = 0.0
        self._seconds = np.zeros(KEPT)

    def add(self, seconds: float) -> bool:
        """Adds the latency of a step; returns True if it missed the deadline."""
        missed = self.deadline is not None and seconds > self.deadline
        self._seconds[self.count % KEPT] = seconds
        self.count += 1
        self.misses += missed
        self._longest = max(self._longest, seconds)
        return missed

    def summary(self) -> dict[str, Any]:
        """Returns latency percentiles of recent steps in ms, and counts, as JSON."""
        recent = 1e3 * self._seconds[: min(self.count, KEPT)]
        names = ("p50_ms", "p95_ms", "p99_ms")
        values = (
            np.percentile(recent, (50, 95, 99)).tolist() if self.count else [None] * 3
        )
        return {
            "steps": self.count,
            **dict(zip(names, values, strict=True)),
            "max_ms": 1e3 * self._longest if self.count else None,
            "deadline_ms": None if self.deadline is None else 1e3 * self.deadline,
            "deadline_misses": self.misses,
        }
