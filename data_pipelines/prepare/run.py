"""Prepares a dataset: all of it or nothing, and every fault in one report."""

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

    Works in a hidden folder beside `out`, which is moved there when complete; what a
    killed run left is removed. If `out` holds this very request already, nothing is
    done. A second run for the same `out` is refused.

    Args:
        raw: the raw folder, or a folder of archives, or archives.
        out: a folder that does not exist, is empty, or was prepared alike.
        request: what to prepare.
        threads: frames read at a time; the records do not depend on it.
        log: called with lines of text.
        progress: called after each frame with (frames done, frames in all).

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: the raw data are not there; says how to come by them.
        DataError: one line for every fault in the raw data; `out` is untouched then.
        WriteError: `out` cannot be written, for instance for want of space.
    """
    _check_request(request)
    out = Path(out).resolve()
    raw = [Path(path).resolve() for path in raw]
    done = _already(out, request)
    if done is not None:
        log(f"{out}: already prepared, {len(done.frames)} frames")
        return done
    missing = [path for path in raw if not path.exists()]
    if missing or not raw:
        names = ", ".join(map(str, missing)) or "raw data"
        obtain = DATASETS[request.dataset].obtain
        raise FileNotFoundError(f"{names}: not found\n{obtain}")
    if any(out == path or out in path.parents for path in raw):
        raise DataError([f"{out}: holds the raw data; choose another --out"])
    work = out.with_name(f".{out.name}.partial")
    with folder_lock(work) as ours:
        if not ours:
            raise DataError(
                [f"{out}: another process prepares into it; wait, or choose another"]
            )
        try:
            done = _already(out, request)
            if done is not None:  # by who held the folder until now
                shutil.rmtree(work)
                return done
            for path in work.iterdir():  # of a run that was killed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            manifest = _fill(work, raw, request, threads, log, progress)
            if out.exists():
                out.rmdir()
            os.replace(work, out)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            why = write_failure(error)
            if why and not isinstance(error, WriteError):
                raise WriteError(f"{out}: cannot be written ({why})") from error
            raise
    return manifest


def _check_request(request: Request) -> None:
    if request.dataset not in PREPARED:
        raise DataError([f"dataset {request.dataset!r}: use {', '.join(PREPARED)}"])
    layout = DATASETS[request.dataset]
    if layout.tasks and request.task not in layout.tasks:
        raise DataError(
            [f"task {request.task!r}: {request.dataset} has {', '.join(layout.tasks)}"]
        )
    if not layout.tasks and request.task:
        raise DataError([f"task {request.task!r}: {request.dataset} has no tasks"])
    if bool(request.masks) != bool(layout.masks):
        raise DataError(
            [f"masks {request.masks!r}: not a choice that {request.dataset} has"]
        )
    if request.subset not in layout.subsets:
        raise DataError(
            [
                f"subset {request.subset!r}: {request.dataset} has "
                + ", ".join(layout.subsets)
            ]
        )
    if request.encoding not in ("png", "jpeg"):
        raise DataError([f"format {request.encoding!r}: use png or jpeg"])
    if request.size is not None and min(request.size) < 1:
        raise DataError([f"size {request.size}: height and width must be at least 1"])
    if request.size is not None and (fault := size_fault(*request.size)):
        raise DataError([f"size: {fault}"])
    if request.mask_values != "class" and not layout.masks:
        raise DataError(
            [
                f"mask values {request.mask_values!r}: the masks of {request.dataset} "
                "have their own"
            ]
        )


def _already(out: Path, request: Request) -> Manifest | None:
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError([f"{out}: is a file; choose another --out"])
    if not any(out.iterdir()):
        return None
    if not (out / MANIFEST).is_file():
        raise DataError([f"{out}: not empty and without {MANIFEST}; use a new one"])
    manifest = read_manifest(out)
    for field, wanted in _plain(request).items():
        # A field that came later had its default before.
        found = manifest.request.get(field, getattr(Request, field, None))
        if found != wanted:
            raise DataError(
                [
                    f"{out}: prepared with {field} {found}, not {wanted}; choose "
                    "another --out or remove this one"
                ]
            )
    return manifest


def _fill(
    work: Path,
    raw: Sequence[Path],
    request: Request,
    threads: int,
    log: Log,
    progress: Progress | None,
) -> Manifest:
    from data_pipelines.prepared.store import record_format, write_records

    begun = time.monotonic()
    source, root = _opened(raw, work / "raw", request, log)
    total = sum(len(video.frames) for video in source.videos)
    log(f"{root}: {len(source.videos)} videos, {total} frames")
    done = itertools.count(1)

    def count() -> None:
        if progress is not None:
            progress(next(done), total)

    entries: list[FrameEntry] = []
    faults: list[str] = []
    frames = frame_records(source, root, request, threads, entries, faults, log, count)
    try:
        records = write_records(work, frames, request.encoding)
    except Exception:
        if faults:
            raise _told(dict.fromkeys(faults), request) from None
        raise
    if DATASETS[request.dataset].masks:
        faults += blank_faults(entries)
    if faults:
        raise DataError(faults)
    shutil.rmtree(work / "raw", ignore_errors=True)
    manifest = Manifest(
        request=_plain(request),
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
        read_manifest(work)  # as those do who train with it
    except DataError as error:
        raise DataError(line.replace(f"{work}/", "") for line in error.faults) from None
    for line in describe(manifest):
        log(line)
    seconds = time.monotonic() - begun
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    log(
        f"{total} frames in {seconds:.1f} s, {size / 1e6:.1f} MB; for 1000 frames "
        f"{1000 * seconds / total:.1f} s, {size / 1e3 / total:.1f} MB"
    )
    return manifest


def _told(faults: Iterable[str], request: Request) -> DataError:
    """The faults, and what else may be asked for if they are about masks' values."""
    lines = list(faults)
    own = DATASETS[request.dataset].masks
    ways = mask_values_advice(lines, request.mask_values) if own else []
    return DataError([*(line for line in lines if line not in ways), *ways])


def _opened(
    raw: Sequence[Path], unpacked: Path, request: Request, log: Log
) -> tuple[RawSource, Path]:
    """The raw data, and their folder: the one given, or a new one of the archives'.

    Raises:
        DataError: with the faults of all archives, and of what the good ones hold.
    """
    archives = list(raw)
    if len(raw) == 1 and raw[0].is_dir():
        inside = [path for path in raw[0].iterdir() if not is_skipped(path.name)]
        archives = sorted(path for path in inside if is_archive(path))
        if not archives or any(path.is_dir() for path in inside):
            try:
                return open_checked(raw[0], request), raw[0]
            except DataError as error:
                raise _told(error.faults, request) from None
    faults: list[str] = []
    for archive in archives:
        if archive.is_dir():
            raise DataError([f"{archive}: a folder among archives; give one or these"])
        try:
            log(f"{archive}: {extract(archive, unpacked)} files unpacked")
        except DataError as error:
            faults += error.faults
    source = None
    try:
        # If no archive is good there is no folder, which is no further fault.
        if unpacked.exists() or not faults:
            unpacked = _unwrapped(unpacked, request)
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
        raise _told(lines, request)
    return source, unpacked


def _unwrapped(folder: Path, request: Request) -> Path:
    """The folder of videos: an archive often holds it, not only what is in it."""
    own = not DATASETS[request.dataset].published
    if own and folder.is_dir() and not video_names(folder):
        inside = [path for path in folder.iterdir() if not is_skipped(path.name)]
        if len(inside) == 1 and video_names(inside[0]):
            return inside[0]
    return folder


def _plain(request: Request) -> dict[str, Any]:
    """The request as JSON gives it back."""
    size = None if request.size is None else list(request.size)
    return {**asdict(request), "size": size}
