"""Your own videos: a folder of frames and a folder of masks for each of them."""

from data_pipelines.folder.reader import (
    FolderSource,
    named_classes,
    open_folder,
)
from data_pipelines.frames import check

__all__ = ["FolderSource", "check", "named_classes", "open_folder"]
