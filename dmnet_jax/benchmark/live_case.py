"""Shared code of the live benchmark's workers: cases, video, timing, comparison.

Every worker first runs `CHECKED_FRAMES` frames whose outputs are compared with the
reference. They fill the memories: two frames of each of the first three scenes, then
frames of the fourth. From frame `FILL_FRAMES` on, the global memory contains one frame
of each scene and every read returns all four, so that the outputs do not depend on the
random selection. Then the steps are timed.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = 8

MAX_SIMILARITY = -1e-3
"""Admission threshold (the paper's beta).

Frames of one scene are equal, so their similarity is 0 and only the first is admitted.
The similarity of frames of different scenes is far below the threshold.
"""

FRAMES_PER_SCENE = 16
"""Length of a scene in the timed video; one of these frames is admitted."""

FILL_FRAMES, CHECKED_FRAMES = 7, 12
WARMUP_STEPS, MIN_STEPS = 2, 3


@dataclass(frozen=True)
class LiveCase:
    """A case to measure.

    Attributes:
        size: (height, width) of the frames.
        streams: number of videos stepped together.
        dtype: "float32" or "bfloat16".
        in_flight: number of frames sent before the labels of the first are read.
        seconds: minimum total duration of the steps in a turn.
    """

    size: tuple[int, int]
    streams: int = 1
    dtype: str = "float32"
    in_flight: int = 1
    seconds: float = 1.5


def scenes(case: LiveCase) -> np.ndarray:
    """Returns four images of random blocks per stream: uint8 [4, B, H, W, 3]."""
    height, width = case.size
    rng = np.random.default_rng(0)
    shape = (4, case.streams, height // 16, width // 16, 3)
    return rng.integers(0, 256, shape, np.uint8).repeat(16, 2).repeat(16, 3)


def checked_scene(index: int) -> int:
    """Returns the index of the scene that the checked frame `index` shows."""
    return min(index // 2, 3)


def frame_source(case: LiveCase) -> Callable[[], np.ndarray]:
    """Returns a function whose calls return the timed frames, one after the other.

    Each call returns uint8 [B, H, W, 3]. The scenes are repeated endlessly.
    """
    images, index = scenes(case), -1

    def next_frame() -> np.ndarray:
        nonlocal index
        index += 1
        return images[index // FRAMES_PER_SCENE % 4]

    return next_frame


def pipeline(
    send: Callable[[], Any], read: Callable[[Any], Any], in_flight: int
) -> Callable[[], Any]:
    """Returns a function that sends one item per call and reads items in order.

    The first `in_flight - 1` calls only send and return None. Each further call sends
    an item, then reads the oldest one and returns the result.
    """
    pending: deque[Any] = deque()

    def call() -> Any:
        pending.append(send())
        return read(pending.popleft()) if len(pending) == in_flight else None

    return call


def time_steps(
    step: Callable[[], Any], min_seconds: float, warmup: int = WARMUP_STEPS
) -> list[float]:
    """Returns the duration in seconds of each step of a turn.

    Args:
        step: runs one step.
        min_seconds: minimum total duration; at least `MIN_STEPS` steps are timed.
        warmup: number of steps to run before, without timing.
    """
    for _ in range(warmup):
        step()
    seconds: list[float] = []
    while len(seconds) < MIN_STEPS or sum(seconds) < min_seconds:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def comparable_outputs(labeled: Any) -> dict[str, Any]:
    """Returns the outputs of a step (`streaming.Labeled`) to compare, by name."""
    return {
        "labels": labeled.labels,
        "confidence": labeled.confidence,
        "distance": -labeled.similarity,
        "admitted": labeled.admitted,
    }


def stack_outputs(outputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Stacks the outputs of the checked frames, by name."""
    return {
        name: np.stack([np.asarray(output[name]) for output in outputs])
        for name in outputs[0]
    }


def differences(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compares stacked outputs of the checked frames.

    Returns:
        "labels" and "admitted", the share of pixels and of admission decisions that
        differ; "confidence" and "distance", the maximum errors relative to the maximum
        magnitudes.
    """

    def relative(name: str, first: int) -> float:
        error = np.abs(actual[name][first:] - expected[name][first:]).max()
        return float(error / np.abs(expected[name][first:]).max())

    return {
        "labels": float((actual["labels"] != expected["labels"])[FILL_FRAMES:].mean()),
        "confidence": relative("confidence", FILL_FRAMES),
        # The first frame has no admitted frame to be compared with.
        "distance": relative("distance", 1),
        "admitted": float((actual["admitted"] != expected["admitted"]).mean()),
    }
