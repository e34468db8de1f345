"""Which frames make a training clip. Only the current frame and the past, ever.

A clip is what the two memories of the paper read (sections 2.2 and 2.3): the local
window, consecutive frames up to the current one, and frames drawn at random from all
that came before, which stand in for what the global memory would have kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.frames import Video


@dataclass(frozen=True)
class ClipSpec:
    """Shape of a clip, in frames.

    Attributes:
        local_size: frames of the local window before the current one (the paper's tau).
        num_past: frames drawn from all previous ones (the paper's n).
        stride: distance between neighbours in the local window.
        score_all: every frame of the window is scored, not only the current one.
    """

    local_size: int = 4
    num_past: int = 4
    stride: int = 1
    score_all: bool = False

    def __post_init__(self):
        if self.local_size < 0 or self.num_past < 0 or self.stride < 1:
            raise ValueError(
                f"{self}: local_size and num_past must be >= 0 and stride >= 1"
            )

    @property
    def length(self) -> int:
        """Frames of the local window with the current one, T."""
        return self.local_size + 1


class Clip(NamedTuple):
    """Frame indices of one clip. A slot whose mask is False holds index 0, unused.

    Attributes:
        frames: int64 `[T]`, the local window, oldest first, the current frame last.
        frames_mask: bool `[T]`, False before the video's start.
        past: int64 `[n]`, distinct previous frames in time order.
        past_mask: bool `[n]`, False where the past is shorter than n.
    """

    frames: np.ndarray
    frames_mask: np.ndarray
    past: np.ndarray
    past_mask: np.ndarray


def sample_clip(
    rng: np.random.Generator,
    videos: Sequence[Video],
    video: int,
    frame: int,
    spec: ClipSpec,
) -> Clip:
    """The clip that ends at frame `frame` of video `video`.

    The past is drawn without replacement from frames 0..frame-1, the local window's
    among them, as the paper draws it. Where there are not n, all of them are taken.

    Raises:
        IndexError: the video has no such frame.
    """
    length = len(videos[video].frames)
    if not 0 <= frame < length:
        raise IndexError(
            f"video {videos[video].name}: no frame {frame}, it has {length}"
        )
    window = frame - spec.stride * np.arange(spec.local_size, -1, -1)
    drawn = rng.choice(frame, size=min(spec.num_past, frame), replace=False)
    past = np.zeros(spec.num_past, np.int64)
    past[: drawn.size] = np.sort(drawn)
    return Clip(
        frames=np.maximum(window, 0),
        frames_mask=window >= 0,
        past=past,
        past_mask=np.arange(spec.num_past) < drawn.size,
    )
