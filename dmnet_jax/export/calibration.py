"""Frames like those that an exported step will see.

For quantization: (memory, frame) pairs from running the float32 step over a run's
training videos or a folder of frames. Activation ranges are measured on them. For
adaptation: frames of a folder alone.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.frames import FrameSource, resize_frames, select_videos
from data_pipelines.io.pairs import PICTURES, list_files
from data_pipelines.sources import DATASETS
from data_pipelines.sources.rendered import RenderedVideos
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets import open_dataset
from dmnet_jax.streaming.described import Description
from dmnet_jax.streaming.letterbox import letterbox
from dmnet_jax.streaming.program import Program
from dmnet_jax.streaming.runtimes import Tensors, step_inputs
from dmnet_jax.video.sources import open_source, sources_in

SAMPLES = 48
"""Approximate number of calibration inputs. A third of them gave the same mIoU."""

STEPS = 240
"""Number of frames to step over, all videos together; others are skipped evenly."""

RENDERED_FRAMES = 24
"""Minimum number of frames per rendered scene; validation alone needs fewer."""

RENDERED_SCENES = 40
"""Number of rendered scenes. With 2 scenes of more frames, twice as many labels differ:
every scene has its own light and camera, and activation ranges depend on them. Scenes
have 6 frames, and every fifth frame is an input, so inputs are of all ages."""

Size = tuple[int, int]


class Clip(NamedTuple):
    """A video to step over.

    Attributes:
        length: number of frames.
        frames: function that returns an iterator over the frames, uint8 [H, W, 3] at
            the step's size.
    """

    length: int
    frames: Callable[[], Iterator[np.ndarray]]


class Calibration(NamedTuple):
    """Calibration videos, and a description of them for messages."""

    clips: Sequence[Clip]
    about: str


def of_training(data: DataConfig, names: Sequence[str], size: Size) -> Calibration:
    """Opens the training videos of a run; of an endless stream, its first scenes.

    Args:
        data: `data` of the run's config.
        names: names of the training videos.
        size: (H, W) of the step.

    Raises:
        ValueError: the videos are not where the config says; names the alternative.
    """
    if DATASETS[data.dataset].endless:
        frames = STEPS // RENDERED_SCENES
        scenes = RenderedVideos(
            data.synthetic.seed, RENDERED_SCENES, frames, size, first=0
        )
        clips = [_of_video(scenes, k) for k in range(RENDERED_SCENES)]
        return Calibration(clips, f"{RENDERED_SCENES} rendered scenes")
    try:
        source = open_dataset(with_size(data, size), names)
        videos = resize_frames(select_videos(source, names), size)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the run's training videos cannot be opened ({error}); pass frames like "
            "those that the step will see with --calibrate DIR"
        ) from error
    about = f"training videos {', '.join(names)}"
    if DATASETS[data.dataset].rendered:
        about = "rendered scenes"
    return Calibration([_of_video(videos, k) for k in range(len(names))], about)


def with_size(data: DataConfig, size: Size) -> DataConfig:
    """Returns the data config with another size and enough rendered frames."""
    frames = max(data.synthetic.frames, RENDERED_FRAMES)
    if not DATASETS[data.dataset].endless:
        return dataclasses.replace(data, size=size)
    synthetic = dataclasses.replace(data.synthetic, frames=frames)
    return dataclasses.replace(data, size=size, synthetic=synthetic)


def of_folder(path: str, size: Size, flag: str = "--calibrate") -> Calibration:
    """Opens a folder of images, a video file, or a folder of such folders and files.

    Args:
        path: a source as for `predict`, or a folder of them (VIDEO or VIDEO/frames).
        size: (H, W) of the step. Frames of other sizes are letterboxed as in a session.
        flag: the flag that has the path, for error messages.

    Raises:
        ValueError: no frame can be read.
    """
    found = []
    for place in _places(Path(path), flag):
        source = open_source(str(place))
        if source.live:
            raise ValueError(f"{flag} {path}: is a live source; record it first")

        def frames(source: Any = source) -> Iterator[np.ndarray]:
            clean = (x.image for x in source if not x.damage)
            return (letterbox(image, size) for image in clean)

        found.append(Clip(sum(1 for _ in frames()), frames))
    if not any(clip.length for clip in found):
        raise ValueError(f"{flag} {path}: no frame can be read")
    name = Path(os.path.abspath(path))
    about = name.parent.name if name.name == "frames" else name.name
    return Calibration([clip for clip in found if clip.length], about)


def spread_frames(calibration: Calibration, count: int) -> np.ndarray:
    """Returns frames that are evenly spread over the videos, uint8 [count, H, W, 3].

    With fewer frames than `count`, some are repeated.
    """
    total = sum(clip.length for clip in calibration.clips)
    images = (image for clip in calibration.clips for image in clip.frames())
    wanted = np.linspace(0, total - 1, count).round().astype(int)
    chosen = [(image,) * int((wanted == k).sum()) for k, image in enumerate(images)]
    return np.stack([image for copies in chosen for image in copies])


def _places(path: Path, flag: str) -> list[Path]:
    """Returns the paths to pass to `open_source`."""
    if not path.is_dir() or list_files(path):
        return [path]
    found = sources_in(path)
    if not found:
        raise ValueError(
            f"{flag} {path}: contains no {', '.join(PICTURES)} files, no videos "
            "and no folders of frames"
        )
    return found


def _of_video(source: FrameSource, video: int) -> Clip:
    length = len(source.videos[video].frames)
    return Clip(length, lambda: (source.image(video, k) for k in range(length)))


class Rolled:
    """Iterates over about `SAMPLES` inputs of a step, collected while streaming.

    An input is valid only until the next one is requested.

    Args:
        program: the float32 step.
        description: description of the step.
        calibration: videos to step over.

    Attributes:
        frames: number of inputs.
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
