"""Prepared data: one record per frame, and a manifest of their contents.

`prepared.store`, which needs TensorFlow Datasets, is imported only when records are
written or opened, so that programs that read raw folders do not need it.
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
