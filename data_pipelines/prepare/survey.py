"""Opens raw folders; errors in the tree and the pixels are in one report."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.frames import DataError, RawSource, read_image
from data_pipelines.io.pairs import PICTURES, is_skipped, number_faults
from data_pipelines.sources import ALL, DATASETS, Request


def open_checked(root: Path, request: Request) -> RawSource:
    """Opens a raw folder.

    Raises:
        DataError: the folder tree is invalid; has its errors and those of the pixels of
            all frames and masks.
    """
    faults: list[str] = _number_faults(root, request)
    source = None
    try:
        opened = DATASETS[request.dataset].open(root, request, ALL)
        source = opened if isinstance(opened, RawSource) else None
    except DataError as error:
        faults += error.faults
    if faults or source is None:
        # Without a valid tree there are no videos, but each file can be read.
        faults += _pixel_faults(root, request)
        raise DataError(dict.fromkeys(faults))
    return source


def _files(root: Path, request: Request) -> Iterator[Path]:
    """Yields the files of all frames and masks."""
    dataset = DATASETS[request.dataset]
    for path in sorted(root.rglob("*"), key=str):
        hidden = any(map(is_skipped, path.relative_to(root).parts))
        if hidden or path.suffix.lower() not in PICTURES or path.is_dir():
            continue
        if path.parent.name == dataset.pictures or dataset.is_mask(path, request):
            yield path


def _number_faults(root: Path, request: Request) -> list[str]:
    """Reports files of a folder whose names differ only in leading zeros."""
    folders: dict[Path, dict[str, Path]] = {}
    for path in _files(root, request):
        folders.setdefault(path.parent, {}).setdefault(path.stem, path)
    return [fault for files in folders.values() for fault in number_faults(files)]


def _pixel_faults(root: Path, request: Request) -> list[str]:
    """Reports files that cannot be decoded."""
    faults: list[str] = []
    dataset = DATASETS[request.dataset]
    for path in _files(root, request):
        try:
            if dataset.is_mask(path, request):
                dataset.read_mask(path, request)
            else:
                read_image(path)
        except DataError as error:
            faults += error.faults
        except OSError as error:
            faults.append(str(error))
    return faults
