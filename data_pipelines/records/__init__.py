"""Prepared data: one record a frame, and a manifest of what is in them."""

from data_pipelines.records.manifest import (
    MANIFEST,
    FrameEntry,
    Manifest,
    array_sha256,
    read_manifest,
    write_manifest,
)
from data_pipelines.records.source import Prepared, open_prepared, verify
from data_pipelines.records.store import open_records, record_format, write_records

__all__ = [
    "MANIFEST",
    "FrameEntry",
    "Manifest",
    "Prepared",
    "array_sha256",
    "open_prepared",
    "open_records",
    "read_manifest",
    "record_format",
    "verify",
    "write_manifest",
    "write_records",
]
