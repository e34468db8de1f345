"""Prepared data: one record a frame, and a manifest of what is in them.

`prepared.store`, which needs TensorFlow Datasets, is imported when records are first
written or opened: programs that read raw folders do without it.
"""

from data_pipelines.prepared.manifest import (
    MANIFEST,
    FrameEntry,
    Manifest,
    array_sha256,
    read_manifest,
    write_manifest,
)
from data_pipelines.prepared.source import Prepared, open_prepared, verify

__all__ = [
    "MANIFEST",
    "FrameEntry",
    "Manifest",
    "Prepared",
    "array_sha256",
    "open_prepared",
    "read_manifest",
    "verify",
    "write_manifest",
]
