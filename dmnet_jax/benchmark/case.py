"""Shared code of the training benchmark's workers: cases, batches, comparison."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

# Rows and columns of the matrices whose product measures the machine's peak.
PRODUCT = 2048


@dataclass(frozen=True)
class Case:
    """A case to measure.

    Attributes:
        memory: whether to use DMNet; otherwise its single-frame network.
        size: (height, width) of the frames.
        batch: number of clips per step.
        exact: compute in float64 to compare gradients; nothing is timed.
        loader_steps: number of steps with the data loader, over which the waiting time
            is measured.
    """

    memory: bool
    size: tuple[int, int]
    batch: int
    exact: bool = False
    loader_steps: int = 0


def random_batch(case: Case, classes: int) -> dict[str, np.ndarray]:
    """Returns a clip batch of smooth random images and blocky labels."""
    rng = np.random.default_rng(0)
    height, width = case.size

    def pictures(count: int) -> np.ndarray:
        shape = (case.batch, count, height // 8, width // 8, 3)
        coarse = rng.integers(0, 256, shape, np.uint8)
        return coarse.repeat(8, axis=2).repeat(8, axis=3)

    frames = pictures(5 if case.memory else 1)
    past = pictures(4 if case.memory else 0)
    shape = (case.batch, height // 16, width // 16)
    label = rng.integers(0, classes, shape, np.uint8).repeat(16, 1).repeat(16, 2)
    return {
        "frames": frames,
        "frames_mask": np.ones(frames.shape[:2], bool),
        "past": past,
        "past_mask": np.ones(past.shape[:2], bool),
        "label": label,
    }


def differences(actual: dict[str, np.ndarray], reference: Path) -> dict[str, float]:
    """Returns relative differences of loss, logits and all gradients together."""
    expected = load_file(reference)
    names = [name for name in expected if name.startswith("gradient/")]
    missing = [name for name in names if name not in actual]
    assert not missing, f"no gradient for {missing}"

    def norm(arrays: list[np.ndarray]) -> float:
        return float(np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays)))

    def relative(names: list[str]) -> float:
        difference = norm([actual[name] - expected[name] for name in names])
        return difference / norm([expected[name] for name in names])

    return {
        "loss": relative(["loss"]),
        "logits": relative(["logits"]),
        "gradient": relative(names),
    }
