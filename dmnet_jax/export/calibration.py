"""Real inputs of a step: (memory, frame), from rolling the float32 step over video.

Ranges of activations are measured on them before a step is quantized, so that they
come from frames like those it will see: a run's training videos, or a folder.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.frames import FrameSource, resized, select
from data_pipelines.io.pairs import PICTURES, listed
from data_pipelines.sources import DATASETS
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets import open_dataset
from dmnet_jax.streaming.described import Description
from dmnet_jax.streaming.letterbox import letterbox
from dmnet_jax.streaming.program import Program
from dmnet_jax.streaming.runtimes import Tensors, step_inputs
from dmnet_jax.video.sources import open_source, sources_in

SAMPLES = 48
"""Inputs that are measured, or a few more: a third of them gave the same mIoU."""

STEPS = 240
"""Frames the step is rolled over, all videos together; the rest is skipped evenly."""

RENDERED_FRAMES = 24
"""Of each rendered scene, which otherwise has as few as validation needs."""

Size = tuple[int, int]


class Clip(NamedTuple):
    """A video to roll over.

    Attributes:
        length: frames.
        frames: calls give them in order: uint8 [H, W, 3], of the step's size.
    """

    length: int
    frames: Callable[[], Iterator[np.ndarray]]


class Calibration(NamedTuple):
    """Videos and what they are, for people."""

    clips: Sequence[Clip]
    about: str


def of_training(data: DataConfig, names: Sequence[str], size: Size) -> Calibration:
    """The videos that a run was trained on.

    Args:
        data: of the run's config.
        names: of its training videos.
        size: of the step.

    Raises:
        ValueError: they are not where the config says; names the way out.
    """
    try:
        source = open_dataset(with_size(data, size), names)
        videos = resized(select(source, names), size)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the run's training videos cannot be opened ({error}); give frames like "
            "those the step will see: --calibrate DIR"
        ) from error
    about = f"training videos {', '.join(names)}"
    if DATASETS[data.dataset].rendered:
        about = "rendered scenes"
    return Calibration([_of_video(videos, k) for k in range(len(names))], about)


def with_size(data: DataConfig, size: Size) -> DataConfig:
    """The data of a config at another size; of rendered scenes, more frames."""
    frames = max(data.synthetic.frames, RENDERED_FRAMES)
    if not DATASETS[data.dataset].endless:
        return dataclasses.replace(data, size=size)
    synthetic = dataclasses.replace(data.synthetic, frames=frames)
    return dataclasses.replace(data, size=size, synthetic=synthetic)


def of_folder(path: str, size: Size) -> Calibration:
    """Frames of a folder of pictures, a video file, or a folder of those.

    Args:
        path: as `predict` takes it; or a folder that holds such (VIDEO, VIDEO/frames).
        size: of the step; other frames are letterboxed as a session does it.

    Raises:
        ValueError: there are no frames.
    """
    found = []
    for place in _places(Path(path)):
        source = open_source(str(place))
        if source.live:
            raise ValueError(f"--calibrate {path}: is live; record some of it first")

        def frames(source: Any = source) -> Iterator[np.ndarray]:
            clean = (x.image for x in source if not x.damage)
            return (letterbox(image, size) for image in clean)

        found.append(Clip(sum(1 for _ in frames()), frames))
    if not any(clip.length for clip in found):
        raise ValueError(f"--calibrate {path}: no frame of it can be read")
    return Calibration([clip for clip in found if clip.length], Path(path).name)


def _places(path: Path) -> list[Path]:
    """What `open_source` is to open."""
    if not path.is_dir() or listed(path):
        return [path]
    found = sources_in(path)
    if not found:
        raise ValueError(
            f"--calibrate {path}: holds no {', '.join(PICTURES)} files, no videos and "
            "no folders of frames"
        )
    return found


def _of_video(source: FrameSource, video: int) -> Clip:
    length = len(source.videos[video].frames)
    return Clip(length, lambda: (source.image(video, k) for k in range(length)))


class Rolled:
    """Iterates over `SAMPLES` inputs of a step, each as the stream came to it.

    Nothing is kept: an input is good until the next one is asked for.

    Args:
        program: the float32 step.
        description: of it.
        calibration: what to roll over.

    Attributes:
        frames: how many inputs there are.
    """

    def __init__(
        self, program: Program, description: Description, calibration: Calibration
    ) -> None:
        self._program, self._clips = program, calibration.clips
        self._inputs_of = step_inputs(description)
        total = sum(clip.length for clip in self._clips)
        self._stride = max(1, -(-total // STEPS))
        steps = sum(-(-clip.length // self._stride) for clip in self._clips)
        self._every = max(1, steps // SAMPLES)
        self.frames = -(-steps // self._every)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Tensors]:
        step, nothing = 0, (np.ones(1, bool), np.zeros(1, np.uint8))
        for number, clip in enumerate(self._clips):
            key = jax.random.fold_in(jax.random.key(0), number)
            memory = self._program.init_memory(key)
            for index, image in enumerate(clip.frames()):
                if index % self._stride:
                    continue
                if step % self._every == 0:
                    yield self._inputs_of(memory, image[None], *nothing)
                memory, _ = self._program.step(memory, image[None])
                step += 1
