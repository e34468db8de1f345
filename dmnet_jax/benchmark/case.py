"""Shared code of the training benchmark's workers: cases, batches, comparison."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

MATMUL_SIZE = 2048
"""Side of the square matrices whose product measures the machine's peak."""


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
    """Returns a clip batch of images and labels that consist of random blocks."""
    rng = np.random.default_rng(0)
    height, width = case.size

    def images(count: int) -> np.ndarray:
        shape = (case.batch, count, height // 8, width // 8, 3)
        coarse = rng.integers(0, 256, shape, np.uint8)
        return coarse.repeat(8, axis=2).repeat(8, axis=3)

    frames = images(5 if case.memory else 1)
    past = images(4 if case.memory else 0)
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
    """Returns relative differences of the loss, the logits, and all gradients together.

    Args:
        actual: arrays named "loss", "logits" and "gradient/NAME".
        reference: safetensors file with arrays of these names.
    """
    expected = load_file(reference)
    gradients = [name for name in expected if name.startswith("gradient/")]
    missing = [name for name in gradients if name not in actual]
    assert not missing, f"no gradient for {missing}"

    def norm(arrays: list[np.ndarray]) -> float:
        return float(np.sqrt(sum(np.square(a, dtype=np.float64).sum() for a in arrays)))

    def relative(names: list[str]) -> float:
        difference = norm([actual[name] - expected[name] for name in names])
        return difference / norm([expected[name] for name in names])

    return {
        "loss": relative(["loss"]),
        "logits": relative(["logits"]),
        "gradient": relative(gradients),
    }
