"""Raw datasets to records quick to read: `python -m data_pipelines.prepare`."""

from data_pipelines.prepare.archives import Caps, extract, is_archive
from data_pipelines.prepare.layouts import DATASETS, Request
from data_pipelines.prepare.run import prepare

__all__ = ["DATASETS", "Caps", "Request", "extract", "is_archive", "prepare"]
