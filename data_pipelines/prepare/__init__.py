"""Raw datasets to records quick to read: `python -m data_pipelines.prepare`."""

from data_pipelines.prepare.archives import Caps, extract, is_archive
from data_pipelines.prepare.layouts import ALL, DATASETS, Chosen, Request
from data_pipelines.prepare.run import prepare

__all__ = [
    "ALL",
    "DATASETS",
    "Caps",
    "Chosen",
    "Request",
    "extract",
    "is_archive",
    "prepare",
]
