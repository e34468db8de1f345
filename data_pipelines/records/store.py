"""Frames as TensorFlow Datasets records, written and read without TensorFlow.

Pictures go in as encoded bytes and come out as such: handed over as arrays they would
be encoded by TensorFlow, and decoding them here keeps the numbers the same whichever
decoders are installed beside.
"""

import contextlib
import importlib
import io
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import tensorflow_datasets as tfds

_SPLIT = "frames"


class Records(Protocol):
    """Random access to records: dicts of image, label, video, frame and index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class PreparedFrames(tfds.core.GeneratorBasedBuilder):
    """One record a frame, in the order given."""

    VERSION = tfds.core.Version("1.0.0")
    # Checksums of downloads, looked for beside the class's source if not given.
    url_infos: Any = {}

    def __init__(self, records: Iterable[dict[str, Any]], encoding: str, **kwargs: Any):
        self._records = records
        self._encoding = encoding
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video frames with class labels; see manifest.json.",
            disable_shuffling=True,
            features=features.FeaturesDict(
                {
                    "image": features.Image(
                        shape=(None, None, 3), encoding_format=self._encoding
                    ),
                    "label": features.Image(
                        shape=(None, None, 1), encoding_format="png"
                    ),
                    "video": features.Text(),
                    "frame": features.Text(),
                    "index": np.int64,
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._records)


def record_format() -> str:
    """array_record, or parquet on systems for which that has no package."""
    try:
        importlib.import_module("array_record.python.array_record_module")
    except ImportError:
        return "parquet"
    return "array_record"


def write_records(
    folder: str | Path, records: Iterable[dict[str, Any]], encoding: str
) -> str:
    """Writes records below `folder`.

    Args:
      folder: an existing folder.
      records: dicts of image (encoded bytes), label (PNG bytes), video, frame (text)
        and index (int); read one at a time.
      encoding: "png" or "jpeg", that of the images.

    Returns:
      The folder of the records, relative to `folder`.
    """
    folder = Path(folder)
    tfds.disable_progress_bar()
    downloads = folder / "downloads"
    builder = PreparedFrames(
        _printing_to(sys.stdout, records),
        encoding,
        data_dir=str(folder),
        file_format=record_format(),
    )
    # The library announces a download, which there is none of.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=str(downloads))
    shutil.rmtree(downloads, ignore_errors=True)
    return Path(builder.data_dir).relative_to(folder).as_posix()


def open_records(folder: str | Path) -> Records:
    """The records in `folder`, images and labels as encoded bytes.

    Raises what the record library raises where files are missing or damaged.
    """
    skip = tfds.decode.SkipDecoding()
    builder: Any = tfds.builder_from_directory(str(folder))
    return builder.as_data_source(split=_SPLIT, decoders={"image": skip, "label": skip})


def _printing_to(
    stdout: TextIO, records: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The records, whose making may print."""
    waiting = iter(records)
    while True:
        with contextlib.redirect_stdout(stdout):
            record = next(waiting, None)
        if record is None:
            return
        yield record
