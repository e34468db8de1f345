"""Converts raw datasets to fast records: `python -m data_pipelines.prepare`."""

from data_pipelines.prepare.archives import Limits, extract, is_archive
from data_pipelines.prepare.run import prepare
from data_pipelines.sources import Request

__all__ = [
    "Limits",
    "Request",
    "extract",
    "is_archive",
    "prepare",
]
