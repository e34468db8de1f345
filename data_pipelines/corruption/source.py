"""A view of a source whose videos are corrupted in bursts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.corruption.kinds import corrupt
from data_pipelines.corruption.schedule import Burst
from data_pipelines.frames import ClassInfo, FrameSource, Video


class Corrupted:
    """A view of `source` with images corrupted in bursts; labels are unchanged.

    Frames are corrupted on demand, at the size of the source's images; apply it after
    `resize_frames`. Frames outside of bursts are unchanged.

    Args:
        source: the clean frames.
        schedules: the bursts of each video.

    Raises:
        ValueError: the schedules do not fit the videos.
    """

    def __init__(self, source: FrameSource, schedules: Sequence[Sequence[Burst]]):
        lengths = [len(video.frames) for video in source.videos]
        if len(lengths) != len(schedules):
            raise ValueError(f"{len(schedules)} schedules for {len(lengths)} videos")
        self._source = source
        self._bursts: list[dict[int, Burst]] = []
        for video, (length, schedule) in enumerate(
            zip(lengths, schedules, strict=True)
        ):
            by_frame: dict[int, Burst] = {}
            for burst in schedule:
                frames = range(burst.start, burst.stop)
                overlaps = bool(by_frame.keys() & {*frames})
                if burst.start < 1 or burst.stop > length or overlaps:
                    raise ValueError(
                        f"{source.videos[video].name}: {burst} does not fit a video "
                        f"of {length} frames, or overlaps another burst"
                    )
                by_frame |= dict.fromkeys(frames, burst)
            self._bursts.append(by_frame)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(self._source.classes)

    @property
    def videos(self) -> tuple[Video, ...]:
        return tuple(self._source.videos)

    def burst(self, video: int, frame: int) -> Burst | None:
        """Returns the burst that contains a frame; None for a clean frame."""
        return self._bursts[video].get(frame)

    def image(self, video: int, frame: int) -> np.ndarray:
        burst = self.burst(video, frame)
        if burst is None:
            return self._source.image(video, frame)
        if burst.kind == "frozen":
            return self._source.image(video, burst.start - 1)
        return corrupt(
            self._source.image(video, frame),
            burst.kind,
            burst.severity,
            seed=burst.seed,
            step=frame - burst.start,
        )

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return self._source.label(video, frame)
