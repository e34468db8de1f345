"""A source of scenes that are rendered on demand."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from data_pipelines.frames import ClassInfo, Video
from data_pipelines.synthetic.instruments import JAWS, SHAFT, WRIST
from data_pipelines.synthetic.render import Frame, Scene, render_frame
from data_pipelines.synthetic.variety import make_varied_scene

PART_CLASSES = (
    ClassInfo("background", (0, 0, 0)),
    ClassInfo("shaft", (230, 159, 0)),
    ClassInfo("wrist", (86, 180, 233)),
    ClassInfo("claspers", (0, 158, 115)),
)

STREAM_RATE = 12.5
"""Frames per second of training clips."""
# Number of the first validation scene; training never reaches it.
_VALIDATION = 1 << 40


def part_label(frame: Frame) -> NDArray[np.uint8]:
    """Returns the visible parts of all instruments, uint8 [H, W] (`PART_CLASSES`)."""
    label = np.zeros(frame.rgb.shape[:2], np.uint8)
    for number, part in enumerate((SHAFT, WRIST, JAWS), 1):
        label[(frame.parts == part).any(0)] = number
    return label


class RenderedVideos:
    """A `FrameSource` of scenes that are rendered on demand.

    Args:
        seed: seed of the series of scenes.
        count: number of videos.
        frames: frames per video.
        size: (height, width) of the frames.
        rate: frames per second.
        first: number of the first scene; by default one that training never uses.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        frames: int,
        size: tuple[int, int],
        *,
        rate: float = 2.0,
        first: int = _VALIDATION,
    ):
        self.seed, self.size, self.rate, self.first = seed, size, rate, first
        self.classes = PART_CLASSES
        names = tuple(f"frame{number:03d}" for number in range(frames))
        self.videos = tuple(Video(f"scene{k}", names) for k in range(count))

    def image(self, video: int, frame: int) -> np.ndarray:
        return self._render(video, frame).rgb

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return part_label(self._render(video, frame))

    def _render(self, video: int, frame: int) -> Frame:
        return _frame(self.seed, self.first + video, self.size, self.rate, frame)


# Callers request the image and the label of a frame one after the other.
@functools.lru_cache(maxsize=4)
def _frame(
    seed: int, number: int, size: tuple[int, int], rate: float, frame: int
) -> Frame:
    return render_frame(_scene(seed, number, size, rate), frame)


@functools.lru_cache(maxsize=2)
def _scene(seed: int, number: int, size: tuple[int, int], rate: float) -> Scene:
    return make_varied_scene(seed, number, size, rate)
