"""Configuration of rendered video."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SyntheticConfig:
    """Rendered video, for `data.dataset` "synthetic" or "rendered".

    Attributes:
        sequences: Numbers of the EndoVis 2017 sequences to imitate ("synthetic").
        frames: Frames of each video; of each validation video ("rendered").
        size: Height and width in pixels ("synthetic").
        rate: Frames per second ("synthetic"); EndoVis 2017 has two.
        seed: Seed; every seed gives different videos.
        scenes: Number of validation videos ("rendered").
        hold: Steps for which a row of the batch shows the same scene ("rendered").
        epoch_steps: Steps per epoch ("rendered").
        cached_scenes: Scenes of a stage with cached views, in place of the endless
            stream ("rendered").
        cached_frames: Frames of each of them, at 12.5 per second.
    """

    sequences: tuple[int, ...] = (1, 2, 3, 4)
    frames: int = 60
    size: tuple[int, int] = (256, 320)
    rate: float = 2.0
    seed: int = 0
    scenes: int = 8
    hold: int = 8
    epoch_steps: int = 100
    cached_scenes: int = 60
    cached_frames: int = 30
