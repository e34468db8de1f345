"""How fast a run's network streams on this machine."""

import os
from typing import Any

import jax
import numpy as np

from dmnet_jax.machine import describe
from dmnet_jax.streaming import Session

FRAMES = 60


def measure(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Steps a session of the run's network through noise.

    Returns:
        JSON: latency as `Session.stats` has it, frame size, machine.

    Raises:
        CheckpointError: no good checkpoint.
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
