"""Reads and writes TensorFlow Datasets records without TensorFlow.

Images are written and read as encoded bytes. TensorFlow would encode arrays itself, and
decoding here gives the same values regardless of the installed decoders.

The library would read the names of feature classes from the folder and import them. To
prevent this, a folder's `features.json` is only compared with the one expected here,
and no other file except the records is read.
"""

import contextlib
import functools
import importlib
import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import tensorflow_datasets as tfds

_SPLIT = "frames"


class Records(Protocol):
    """Random access to records: dicts with image, label, video, frame and index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class PreparedFrames(tfds.core.GeneratorBasedBuilder):
    """Writes one record per frame, in the given order."""

    VERSION = tfds.core.Version("1.0.0")
    # Without this, the library looks for a file of download checksums.
    url_infos: Any = {}

    def __init__(self, records: Iterable[dict[str, Any]], encoding: str, **kwargs: Any):
        self._records = records
        self._encoding = encoding
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video frames with class labels; see manifest.json.",
            disable_shuffling=True,
            features=_features(self._encoding),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {_SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._records)


def record_format() -> str:
    """Returns "array_record", or "parquet" on systems where it is not available."""
    try:
        importlib.import_module("array_record.python.array_record_module")
    except ImportError:
        return "parquet"
    return "array_record"


def write_records(
    folder: str | Path, records: Iterable[dict[str, Any]], encoding: str
) -> str:
    """Writes records into a new folder inside `folder`.

    Args:
        folder: an existing folder.
        records: dicts with image (encoded bytes), label (PNG bytes), video, frame
            (text) and index (int); consumed one at a time.
        encoding: encoding of the images, "png" or "jpeg".

    Returns:
        The folder of the records, relative to `folder`.
    """
    folder = Path(folder)
    tfds.disable_progress_bar()
    downloads = folder / "downloads"
    builder = PreparedFrames(
        _with_stdout(sys.stdout, records),
        encoding,
        data_dir=str(folder),
        file_format=record_format(),
    )
    # The library announces a download, although nothing is downloaded.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=str(downloads))
    shutil.rmtree(downloads, ignore_errors=True)
    return Path(builder.data_dir).relative_to(folder).as_posix()


def open_records(folder: str | Path) -> Records:
    """Opens the records in `folder`, with images and labels as encoded bytes.

    Raises:
        ValueError: `features.json` was not written by this program, or files are
            missing.
        Exception: the record library may raise any exception for damaged files.
    """
    folder = Path(folder)
    description = json.loads((folder / "features.json").read_bytes())
    if description not in (_description("png"), _description("jpeg")):
        raise ValueError("features.json was not written by this program")
    for kind, open_files in (("array_record", _array_records), ("parquet", _Parquet)):
        shards = _shards(folder, kind)
        if shards:
            return _Deserialized(open_files([str(path) for path in shards]))
    raise ValueError("no record files")


def _features(encoding: str) -> Any:
    features = tfds.features
    return features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3), encoding_format=encoding),
            "label": features.Image(shape=(None, None, 1), encoding_format="png"),
            "video": features.Text(),
            "frame": features.Text(),
            "index": np.int64,
        }
    )


@functools.cache
def _description(encoding: str) -> Any:
    """Returns the content of `features.json` for images of this encoding."""
    with tempfile.TemporaryDirectory() as folder:
        _features(encoding).save_config(folder)
        return json.loads((Path(folder) / "features.json").read_bytes())


def _shards(folder: Path, kind: str) -> list[Path]:
    """Returns the record files of a kind, in order; [] if there are none.

    Raises:
        ValueError: some files are missing.
    """
    name = re.compile(rf"{PreparedFrames.name}-{_SPLIT}\.{kind}-(\d{{5}})-of-(\d{{5}})")
    matches = sorted(
        (match[1], match[2], path)
        for path in folder.iterdir()
        if (match := name.fullmatch(path.name))
    )
    numbers = [(int(number), int(count)) for number, count, _ in matches]
    if numbers != [(i, len(numbers)) for i in range(len(numbers))]:
        raise ValueError("some record files are missing")
    return [path for _, _, path in matches]


class _Deserialized:
    """Deserializes records from a sequence of bytes."""

    def __init__(self, examples: Any):
        self._examples = examples
        # The encoding does not matter, because images are not decoded.
        self._features = _features("png")
        skip = tfds.decode.SkipDecoding()
        self._decoders = {"image": skip, "label": skip}

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._features.deserialize_example_np(
            self._examples[index], decoders=self._decoders
        )


def _array_records(files: list[str]) -> Any:
    source = importlib.import_module("array_record.python.array_record_data_source")
    return source.ArrayRecordDataSource(files)


class _Parquet:
    """The serialized records in Parquet files, which have one column."""

    def __init__(self, files: list[str]):
        parquet = importlib.import_module("pyarrow.parquet")
        self._table = parquet.ParquetDataset(files).read()

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> bytes:
        return self._table.column(0)[index].as_py()


def _with_stdout(
    stdout: TextIO, records: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the records; code that makes them prints to `stdout`."""
    iterator = iter(records)
    while True:
        with contextlib.redirect_stdout(stdout):
            record = next(iterator, None)
        if record is None:
            return
        yield record
