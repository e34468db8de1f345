"""A user's own videos: a folder of frames and a folder of masks for each video."""

from data_pipelines.frames import check
from data_pipelines.sources.folder.dataset import DATASET
from data_pipelines.sources.folder.masks import (
    MASK_VALUES,
    MaskValues,
    mask_values_advice,
    read_mask,
)
from data_pipelines.sources.folder.reader import (
    FolderSource,
    named_classes,
    open_folder,
)
from data_pipelines.sources.folder.tree import video_names

__all__ = [
    "DATASET",
    "MASK_VALUES",
    "FolderSource",
    "MaskValues",
    "check",
    "mask_values_advice",
    "named_classes",
    "open_folder",
    "read_mask",
    "video_names",
]
