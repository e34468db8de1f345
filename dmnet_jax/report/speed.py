"""Measures the streaming speed of a run's network on this machine."""

import os
from typing import Any

import jax
import numpy as np

from dmnet_jax.machine import describe
from dmnet_jax.streaming import Session

FRAMES = 60


def measure(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Measures step latencies of the run's network on random frames.

    Returns:
        JSON with latency as in `Session.stats`, frame size and machine.

    Raises:
        CheckpointError: the run has no usable checkpoint.
    """
    with Session.from_checkpoint(run, which="newest") as session:
        height, width = session.program.interface.size
        rng = np.random.default_rng(0)
        for _ in range(FRAMES):
            session.step(rng.integers(0, 256, (height, width, 3), np.uint8))
        return {
            "latency": session.stats()["latency"],
            "size": [height, width],
            "device": jax.devices()[0].device_kind,
            "machine": describe(),
        }
