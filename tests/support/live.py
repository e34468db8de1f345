"""A tiny network and an endless film for the tests of the live page."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dmnet_jax.predict.network import Network, network_of
from dmnet_jax.streaming import TrainedRun
from dmnet_jax.video.sources import Captured, SourceError
from tests.support import tiny_run

SIZE = (128, 128)
RATE = 50.0
ABOUT = {"source": "a" * 200, "checkpoint": "runs/tiny"}
EVERYTHING = {"min_confidence": -9.0, "max_similarity": 0.0}
"""Thresholds with which every frame is admitted."""


@contextmanager
def network(**fields: Any) -> Iterator[Network]:
    """Yields a network that admits every frame; it is compiled once for all tests."""
    with tiny_run.shallow():
        classes = [{"name": n, "color": [9, 9, 9]} for n in tiny_run.CLASSES]
        model, variables = tiny_run.network()
        model = model.clone(**fields)
        config = tiny_run.tiny_config()
        network = network_of(TrainedRun(model, variables, config, {"classes": classes}))
        program = tiny_run.program(SIZE).with_thresholds
        assert program is not None
        network._programs[SIZE] = program(EVERYTHING)
        yield network


@dataclass(frozen=True)
class Film:
    """Moving squares, again and again; may break off."""

    frames: int = 8
    live: bool = False
    fails: bool = False
    duration: float | None = None
    start: float = 0.0
    rate: float = RATE

    def __iter__(self) -> Iterator[Captured]:
        for index in range(round(self.start * RATE), self.frames):
            # Each frame has its own noise, or one that repeats would count as frozen.
            image = tiny_run.picture(index % 8, SIZE, seed=index)[0]
            yield Captured(image, index / RATE, f"{index:06}")
        if self.fails:
            raise SourceError("the film is torn")


def until(engine, condition, seconds=60.0):
    """The next event that meets a condition; an engine that failed has no next one."""
    number, end = engine._number, time.monotonic() + seconds
    while time.monotonic() < end:
        now, event = engine.wait(number, 1.0)
        if (now > number or engine.failure) and condition(event):
            return event
        number = now
    raise AssertionError("no event met the condition")
