"""Simulated image corruptions: smoke, blood, low light, blur, glare and others.

    source = Corrupted(source, plan([150, 150], seed=0)[0])   # videos with bursts
    frames = corrupt_clip(frames, where, rng, kinds=TRAINED)  # a training clip

Corruptions are pure functions of a frame, a seed and the position in the burst, and
change smoothly over the frames of a burst. Lengths are relative to the frame height, so
that a seed gives the same corruption at every image size.
"""

from data_pipelines.corruption.clips import (
    Corruption,
    Layer,
    corrupt_clip,
    corrupt_layers,
    draw_layers,
)
from data_pipelines.corruption.kinds import (
    KINDS,
    SEVERITIES,
    TRAINED,
    UNGRADED,
    UNSEEN,
    corrupt,
)
from data_pipelines.corruption.schedule import (
    FIRST_CLEAN,
    GAPS,
    LENGTHS,
    Burst,
    bursts,
    plan,
)
from data_pipelines.corruption.source import Corrupted

__all__ = [
    "FIRST_CLEAN",
    "GAPS",
    "KINDS",
    "LENGTHS",
    "SEVERITIES",
    "TRAINED",
    "UNGRADED",
    "UNSEEN",
    "Burst",
    "Corrupted",
    "Corruption",
    "Layer",
    "bursts",
    "corrupt",
    "corrupt_clip",
    "corrupt_layers",
    "draw_layers",
    "plan",
]
