"""Samples the frames of training clips, which are causal.

A clip has the frames that the two memories of the paper read (sections 2.2 and 2.3):
the local window of consecutive frames up to the current one, and frames drawn at random
from all previous frames, in place of those that the global memory would have admitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.frames import Video


@dataclass(frozen=True)
class ClipSpec:
    """Number of frames in a clip.

    Attributes:
        local_size: frames in the local window before the current one (the paper's tau).
        num_past: frames drawn from all previous ones (the paper's n).
        stride: distance between consecutive frames of the local window.
        score_all: whether every frame of the window is scored, or only the current one.
        still: fraction of windows that repeat the current frame, as if nothing moved.
    """

    local_size: int = 4
    num_past: int = 4
    stride: int = 1
    score_all: bool = False
    still: float = 0.0

    def __post_init__(self):
        if self.local_size < 0 or self.num_past < 0 or self.stride < 1:
            raise ValueError(
                f"{self}: local_size and num_past must be >= 0 and stride >= 1"
            )
        if not 0 <= self.still <= 1:
            raise ValueError(f"still={self.still}: must be within 0..1")

    @property
    def length(self) -> int:
        """T, the number of frames in the local window, including the current one."""
        return self.local_size + 1


class Clip(NamedTuple):
    """Frame indices of a clip. Where a mask is False, the index is 0 and not used.

    Attributes:
        frames: int64 `[T]`, the local window, oldest first, the current frame last.
        frames_mask: bool `[T]`, False before the start of the video.
        past: int64 `[n]`, distinct previous frames in time order.
        past_mask: bool `[n]`, False where there are fewer than n previous frames.
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
    """Samples a clip that ends at frame `frame` of video `video`.

    As in the paper, past frames are drawn without replacement from all frames before
    the current one, including those of the local window. If there are fewer than n, all
    are used.

    Args:
        rng: the generator.
        videos: all videos.
        video: index of the video.
        frame: index of the current frame.
        spec: number of frames.

    Raises:
        IndexError: the frame does not exist.
    """
    length = len(videos[video].frames)
    if not 0 <= frame < length:
        raise IndexError(
            f"video {videos[video].name}: no frame {frame}, it has {length}"
        )
    stride = 0 if spec.still and rng.uniform() < spec.still else spec.stride
    window = frame - stride * np.arange(spec.local_size, -1, -1)
    sampled = rng.choice(frame, size=min(spec.num_past, frame), replace=False)
    past = np.zeros(spec.num_past, np.int64)
    past[: sampled.size] = np.sort(sampled)
    return Clip(
        frames=np.maximum(window, 0),
        frames_mask=window >= 0,
        past=past,
        past_mask=np.arange(spec.num_past) < sampled.size,
    )
