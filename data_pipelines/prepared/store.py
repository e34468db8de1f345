"""Frames as TensorFlow Datasets records, written and read without TensorFlow.

Pictures go in as encoded bytes and come out as such: handed over as arrays they would
be encoded by TensorFlow, and decoding them here keeps the numbers the same whichever
decoders are installed beside.

The library would read which classes describe the records from the folder, and import
whatever it names. So a folder's `features.json` is only compared with the description
that is made here, and nothing else beside the records is looked at.
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

    Raises:
        ValueError: the folder describes its records otherwise than this program does,
            or files are missing.

    Raises what the record library raises where files are damaged.
    """
    folder = Path(folder)
    described = json.loads((folder / "features.json").read_bytes())
    if described not in (_description("png"), _description("jpeg")):
        raise ValueError("features.json is not of this program")
    for kind, opened in (("array_record", _array_records), ("parquet", _Parquet)):
        shards = _shards(folder, kind)
        if shards:
            return _Decoded(opened([str(path) for path in shards]))
    raise ValueError("no file of records")


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
    """What `features.json` holds beside records with these images."""
    with tempfile.TemporaryDirectory() as folder:
        _features(encoding).save_config(folder)
        return json.loads((Path(folder) / "features.json").read_bytes())


def _shards(folder: Path, kind: str) -> list[Path]:
    """The files of a folder's records, in order; none if it has none of this kind.

    Raises:
        ValueError: some are missing.
    """
    name = re.compile(rf"{PreparedFrames.name}-{_SPLIT}\.{kind}-(\d{{5}})-of-(\d{{5}})")
    found = {path.name: path for path in folder.iterdir() if name.fullmatch(path.name)}
    matches = [match for match in map(name.fullmatch, sorted(found)) if match]
    numbers = [(int(match[1]), int(match[2])) for match in matches]
    if numbers != [(i, len(numbers)) for i in range(len(numbers))]:
        raise ValueError("some of the files of records are missing")
    return [found[match[0]] for match in matches]


class _Decoded:
    """Records as dicts, of a source of their bytes."""

    def __init__(self, stored: Any):
        self._stored = stored
        # One description will do: pictures stay encoded, however they are.
        self._features = _features("png")
        skip = tfds.decode.SkipDecoding()
        self._decoders = {"image": skip, "label": skip}

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._features.deserialize_example_np(
            self._stored[index], decoders=self._decoders
        )


def _array_records(files: list[str]) -> Any:
    source = importlib.import_module("array_record.python.array_record_data_source")
    return source.ArrayRecordDataSource(files)


class _Parquet:
    """The bytes of records in Parquet files, which have one column."""

    def __init__(self, files: list[str]):
        parquet = importlib.import_module("pyarrow.parquet")
        self._table = parquet.ParquetDataset(files).read()

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> bytes:
        return self._table.column(0)[index].as_py()


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
