"""What the contestants of the live benchmark share: case, video, comparison."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = 8
# Admitted is what differs: frames of one scene are equal, those of others are far off.
MAX_SIMILARITY = -1e-3
# Frames of a scene while time is taken: one in so many is admitted.
SCENE = 16
# Before time is taken the memories are filled, four scenes of two frames each and then
# the fourth: from its second frame on, whoever reads, reads all four.
FILLED, CHECKED = 7, 12
WARM, SHORTEST = 2, 3


@dataclass(frozen=True)
class LiveCase:
    """What is measured.

    Attributes:
        size: height and width of frames.
        streams: videos stepped together.
        dtype: "float32" or "bfloat16".
        in_flight: frames under way: the next is sent before labels are read.
        seconds: least time that a turn's steps take together.
    """

    size: tuple[int, int]
    streams: int = 1
    dtype: str = "float32"
    in_flight: int = 1
    seconds: float = 1.5


def scenes(case: LiveCase) -> np.ndarray:
    """Four smooth random pictures for every stream: uint8 [4, B, H, W, 3]."""
    height, width = case.size
    rng = np.random.default_rng(0)
    shape = (4, case.streams, height // 16, width // 16, 3)
    return rng.integers(0, 256, shape, np.uint8).repeat(16, 2).repeat(16, 3)


def checked_scene(index: int) -> int:
    """Of a frame before time is taken."""
    return min(index // 2, 3)


def timed_frames(case: LiveCase) -> Callable[[], np.ndarray]:
    """The frames after those; each call gives the next."""
    pictures, index = scenes(case), -1

    def following() -> np.ndarray:
        nonlocal index
        index += 1
        return pictures[index // SCENE % 4]

    return following


def pipelined(
    send: Callable[[], Any], read: Callable[[Any], Any], in_flight: int
) -> Callable[[], Any]:
    """A call that sends one more and reads the oldest, once `in_flight` are under way.

    Until then it gives None.
    """
    waiting: deque[Any] = deque()

    def call() -> Any:
        waiting.append(send())
        return read(waiting.popleft()) if len(waiting) == in_flight else None

    return call


def timed(step: Callable[[], Any], least: float, warm: int = WARM) -> list[float]:
    """Seconds of each step of a turn, `least` in all, after `warm` not counted."""
    for _ in range(warm):
        step()
    seconds: list[float] = []
    while len(seconds) < SHORTEST or sum(seconds) < least:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


def compared(out: Any) -> dict[str, Any]:
    """What is compared of a step's outcome, a `streaming.Labeled`, by name."""
    return {
        "labels": out.labels,
        "confidence": out.confidence,
        "distance": -out.similarity,
        "admitted": out.admitted,
    }


def stacked(outputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Of the frames of the comparison, by name."""
    return {
        name: np.stack([np.asarray(output[name]) for output in outputs])
        for name in outputs[0]
    }


def differences(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """Share of pixels and decisions that differ, and relative errors of the scores."""

    def relative(name: str, first: int) -> float:
        error = np.abs(actual[name][first:] - expected[name][first:]).max()
        return float(error / np.abs(expected[name][first:]).max())

    return {
        "labels": float((actual["labels"] != expected["labels"])[FILLED:].mean()),
        "confidence": relative("confidence", FILLED),
        "distance": relative("distance", 1),  # the first has nothing to differ from
        "admitted": float((actual["admitted"] != expected["admitted"]).mean()),
    }
