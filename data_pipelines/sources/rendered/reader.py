"""Rendered scenes as videos: nothing is read from disk."""

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
"""Frames a second of clips that are trained on."""
# Scenes of validation are numbered from here on; training never gets there.
_VALIDATION = 1 << 40


def part_label(frame: Frame) -> NDArray[np.uint8]:
    """The visible parts of all instruments, uint8 [H, W], as `PART_CLASSES`."""
    label = np.zeros(frame.rgb.shape[:2], np.uint8)
    for number, part in enumerate((SHAFT, WRIST, JAWS), 1):
        label[(frame.parts == part).any(0)] = number
    return label


class RenderedVideos:
    """A `FrameSource` of a few scenes, rendered when they are asked for.

    Args:
        seed: of the series of scenes.
        count: videos.
        frames: of each.
        size: (height, width), pixels.
        rate: frames a second.
        first: number of the first scene; by default one that no training gets to.
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
        return self._rendered(video, frame).rgb

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return part_label(self._rendered(video, frame))

    def _rendered(self, video: int, frame: int) -> Frame:
        return _frame(self.seed, self.first + video, self.size, self.rate, frame)


# A picture and its label are asked for one after the other.
@functools.lru_cache(maxsize=4)
def _frame(
    seed: int, number: int, size: tuple[int, int], rate: float, frame: int
) -> Frame:
    return render_frame(_scene(seed, number, size, rate), frame)


@functools.lru_cache(maxsize=2)
def _scene(seed: int, number: int, size: tuple[int, int], rate: float) -> Scene:
    return make_varied_scene(seed, number, size, rate)
