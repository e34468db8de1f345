"""Frames that a camera lost for a moment: smoke, blood, darkness, blur, glare.

    source = Corrupted(source, plan([150, 150], seed=0)[0])   # videos with bursts
    frames = corrupt_clip(frames, chosen, rng, kinds=TRAINED)   # a training clip

Pure functions of a frame, a seed and the position in the burst: consecutive frames of
a burst fit each other as a real disturbance's do. Lengths are in frame heights, so one
seed gives the same disturbance at every size.
"""

from data_pipelines.corruption.clips import Corruption, corrupt_clip
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
    "bursts",
    "corrupt",
    "corrupt_clip",
    "plan",
]
