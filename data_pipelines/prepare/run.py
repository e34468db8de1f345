"""Prepares a dataset completely or not at all, and reports all errors at once."""

import itertools
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.frames import DataError, RawSource
from data_pipelines.io.files import WriteError, folder_lock, write_failure
from data_pipelines.io.images import size_fault
from data_pipelines.io.pairs import is_skipped
from data_pipelines.prepare.archives import extract, is_archive
from data_pipelines.prepare.records import blank_faults, frame_records
from data_pipelines.prepare.report import describe
from data_pipelines.prepare.survey import open_checked
from data_pipelines.prepared import (
    MANIFEST,
    FrameEntry,
    Manifest,
    read_manifest,
    write_manifest,
)
from data_pipelines.sources import DATASETS, PREPARED, Request
from data_pipelines.sources.folder import mask_values_advice, video_names

Log = Callable[[str], None]
Progress = Callable[[int, int], None]


def prepare(
    raw: Sequence[str | Path],
    out: str | Path,
    request: Request,
    *,
    threads: int = 2,
    log: Log = print,
    progress: Progress | None = None,
) -> Manifest:
    """Writes records and a manifest of a raw dataset to `out`.

    Works in a hidden folder next to `out`, which is renamed when it is complete; the
    hidden folder of a killed run is removed first. If `out` was already prepared with
    the same request, nothing is done. A concurrent run for the same `out` is refused.

    Args:
        raw: the raw folder, or a folder of archives, or archives.
        out: a folder that does not exist, is empty, or was prepared with `request`.
        request: what to prepare.
        threads: number of frames read at a time; does not affect the records.
        log: called with lines of text.
        progress: called after each frame with (completed frames, total frames).

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: the raw data do not exist; says how to obtain them.
        DataError: one line for every error in the raw data; `out` is not changed.
        WriteError: `out` cannot be written, for example because the disk is full.
    """
    _check_request(request)
    out = Path(out).resolve()
    raw = [Path(path).resolve() for path in raw]
    existing = _existing_manifest(out, request)
    if existing is not None:
        log(f"{out}: already prepared, {len(existing.frames)} frames")
        return existing
    missing = [path for path in raw if not path.exists()]
    if missing or not raw:
        names = ", ".join(map(str, missing)) or "raw data"
        obtain = DATASETS[request.dataset].obtain
        raise FileNotFoundError(f"{names}: not found\n{obtain}")
    if any(out == path or out in path.parents for path in raw):
        raise DataError([f"{out}: contains the raw data; choose another --out"])
    work = out.with_name(f".{out.name}.partial")
    with folder_lock(work) as locked:
        if not locked:
            raise DataError(
                [f"{out}: another process prepares into it; wait, or choose another"]
            )
        try:
            existing = _existing_manifest(out, request)
            if existing is not None:  # written by the previous holder of the lock
                shutil.rmtree(work)
                return existing
            for path in work.iterdir():  # left by a killed run
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            manifest = _write(work, raw, request, threads, log, progress)
            if out.exists():
                out.rmdir()
            os.replace(work, out)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            reason = write_failure(error)
            if reason and not isinstance(error, WriteError):
                raise WriteError(f"{out}: cannot be written ({reason})") from error
            raise
    return manifest


def _check_request(request: Request) -> None:
    """Raises a DataError if the dataset does not support a field of the request."""
    if request.dataset not in PREPARED:
        raise DataError([f"dataset {request.dataset!r}: use {', '.join(PREPARED)}"])
    dataset = DATASETS[request.dataset]
    if dataset.tasks and request.task not in dataset.tasks:
        raise DataError(
            [f"task {request.task!r}: {request.dataset} has {', '.join(dataset.tasks)}"]
        )
    if not dataset.tasks and request.task:
        raise DataError([f"task {request.task!r}: {request.dataset} has no tasks"])
    if bool(request.masks) != bool(dataset.masks):
        raise DataError(
            [f"masks {request.masks!r}: {request.dataset} does not have this choice"]
        )
    if request.subset not in dataset.subsets:
        raise DataError(
            [
                f"subset {request.subset!r}: {request.dataset} has "
                + ", ".join(dataset.subsets)
            ]
        )
    if request.encoding not in ("png", "jpeg"):
        raise DataError([f"format {request.encoding!r}: use png or jpeg"])
    if request.size is not None and min(request.size) < 1:
        raise DataError([f"size {request.size}: height and width must be at least 1"])
    if request.size is not None and (fault := size_fault(*request.size)):
        raise DataError([f"size: {fault}"])
    if request.mask_values != "class" and not dataset.masks:
        raise DataError(
            [
                f"mask values {request.mask_values!r}: {request.dataset} does not have "
                "this choice"
            ]
        )


def _existing_manifest(out: Path, request: Request) -> Manifest | None:
    """Returns the manifest if `out` was prepared with `request`; None if it is empty.

    Raises:
        DataError: `out` has other contents.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError([f"{out}: is a file; choose another --out"])
    if not any(out.iterdir()):
        return None
    if not (out / MANIFEST).is_file():
        raise DataError(
            [f"{out}: not empty and without {MANIFEST}; choose a new folder"]
        )
    manifest = read_manifest(out)
    for field, requested in _as_json(request).items():
        # Manifests written before a field existed have its default.
        stored = manifest.request.get(field, getattr(Request, field, None))
        if stored != requested:
            raise DataError(
                [
                    f"{out}: prepared with {field} {stored}, not {requested}; choose "
                    "another --out or remove this one"
                ]
            )
    return manifest


def _write(
    work: Path,
    raw: Sequence[Path],
    request: Request,
    threads: int,
    log: Log,
    progress: Progress | None,
) -> Manifest:
    """Writes records and manifest to the folder `work`."""
    from data_pipelines.prepared.store import record_format, write_records

    start = time.monotonic()
    source, root = _open_raw(raw, work / "raw", request, log)
    total = sum(len(video.frames) for video in source.videos)
    log(f"{root}: {len(source.videos)} videos, {total} frames")
    completed = itertools.count(1)

    def count() -> None:
        if progress is not None:
            progress(next(completed), total)

    entries: list[FrameEntry] = []
    faults: list[str] = []
    frames = frame_records(source, root, request, threads, entries, faults, log, count)
    try:
        records = write_records(work, frames, request.encoding)
    except Exception:
        if faults:
            raise _with_advice(dict.fromkeys(faults), request) from None
        raise
    if DATASETS[request.dataset].masks:
        faults += blank_faults(entries)
    if faults:
        raise DataError(faults)
    shutil.rmtree(work / "raw", ignore_errors=True)
    manifest = Manifest(
        request=_as_json(request),
        classes=source.classes,
        resize="images bilinear, antialiased when reducing; labels as stored",
        records=records,
        versions={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": version("pillow"),
            "tensorflow-datasets": version("tensorflow-datasets"),
            "records": record_format(),
        },
        frames=tuple(entries),
    )
    write_manifest(work, manifest)
    try:
        read_manifest(work)  # checks names and sizes, as training does
    except DataError as error:
        raise DataError(line.replace(f"{work}/", "") for line in error.faults) from None
    for line in describe(manifest):
        log(line)
    seconds = time.monotonic() - start
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    log(
        f"{total} frames in {seconds:.1f} s, {size / 1e6:.1f} MB; for 1000 frames "
        f"{1000 * seconds / total:.1f} s, {size / 1e3 / total:.1f} MB"
    )
    return manifest


def _with_advice(faults: Iterable[str], request: Request) -> DataError:
    """Returns an error whose last line is advice, if a fault is about mask values."""
    lines = list(faults)
    has_choice = DATASETS[request.dataset].masks
    advice = mask_values_advice(lines, request.mask_values) if has_choice else []
    return DataError([*(line for line in lines if line not in advice), *advice])


def _open_raw(
    raw: Sequence[Path], unpacked: Path, request: Request, log: Log
) -> tuple[RawSource, Path]:
    """Opens the raw data.

    Args:
        raw: the raw folder, or a folder of archives, or archives.
        unpacked: the folder to unpack archives to.
        request: what to open.
        log: called with lines of text.

    Returns:
        (source, root): the raw data and their folder.

    Raises:
        DataError: has the errors of all archives and of the files in valid archives.
    """
    archives = list(raw)
    if len(raw) == 1 and raw[0].is_dir():
        entries = [path for path in raw[0].iterdir() if not is_skipped(path.name)]
        archives = sorted(path for path in entries if is_archive(path))
        if not archives or any(path.is_dir() for path in entries):
            try:
                return open_checked(raw[0], request), raw[0]
            except DataError as error:
                raise _with_advice(error.faults, request) from None
    faults: list[str] = []
    for archive in archives:
        if archive.is_dir():
            raise DataError(
                [f"{archive}: a folder among archives; use one folder or only archives"]
            )
        try:
            log(f"{archive}: {extract(archive, unpacked)} files unpacked")
        except DataError as error:
            faults += error.faults
    source = None
    try:
        # If no archive is valid there is no folder, which is not another error.
        if unpacked.exists() or not faults:
            unpacked = _video_root(unpacked, request)
            source = open_checked(unpacked, request)
    except DataError as error:
        faults += error.faults
    if faults or source is None:
        lines = (
            line.replace(f"{unpacked}/", "").replace(
                f"{unpacked}: ", "in the archive: "
            )
            for line in faults
        )
        raise _with_advice(lines, request)
    return source, unpacked


def _video_root(folder: Path, request: Request) -> Path:
    """Returns the folder of videos, which may be the only entry of an archive."""
    is_own = not DATASETS[request.dataset].published
    if is_own and folder.is_dir() and not video_names(folder):
        entries = [path for path in folder.iterdir() if not is_skipped(path.name)]
        if len(entries) == 1 and video_names(entries[0]):
            return entries[0]
    return folder


def _as_json(request: Request) -> dict[str, Any]:
    """Returns the fields of the request as JSON values."""
    size = None if request.size is None else list(request.size)
    return {**asdict(request), "size": size}
