"""CamVid: road video with labels of 11 classes."""

from data_pipelines.sources.camvid.dataset import DATASET
from data_pipelines.sources.camvid.raw import (
    CLASSES,
    SPLITS,
    CamVid,
    decode_mask,
    open_camvid,
)

__all__ = ["CLASSES", "DATASET", "SPLITS", "CamVid", "decode_mask", "open_camvid"]
