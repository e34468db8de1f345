"""EndoVis 2018, robotic scene segmentation, as distributed by the challenge."""

from data_pipelines.sources.endovis18.dataset import DATASET
from data_pipelines.sources.endovis18.raw import (
    EndoVis18,
    open_endovis18,
    sequence_numbers,
)
from data_pipelines.sources.endovis18.tables import (
    CLASSES,
    SEQUENCES,
    SPLITS,
    UNKNOWN,
    Split,
    decode_colors,
)

__all__ = [
    "CLASSES",
    "DATASET",
    "SEQUENCES",
    "SPLITS",
    "UNKNOWN",
    "EndoVis18",
    "Split",
    "decode_colors",
    "open_endovis18",
    "sequence_numbers",
]
