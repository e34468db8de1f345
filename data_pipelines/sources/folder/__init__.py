"""Your own videos: a folder of frames and a folder of masks for each of them."""

from data_pipelines.frames import check
from data_pipelines.sources.folder.dataset import DATASET
from data_pipelines.sources.folder.masks import (
    MASK_VALUES,
    MaskValues,
    other_ways,
    read_mask,
)
from data_pipelines.sources.folder.reader import (
    FolderSource,
    named_classes,
    open_folder,
    video_names,
)

__all__ = [
    "DATASET",
    "MASK_VALUES",
    "other_ways",
    "FolderSource",
    "MaskValues",
    "check",
    "named_classes",
    "open_folder",
    "read_mask",
    "video_names",
]
