"""Converts exports of annotation tools to a folder of videos for training.

    python -m data_pipelines.annotations --raw EXPORT... --out ROOT

EXPORT is CVAT's "Segmentation mask 1.1", COCO instances (a JSON file or its folder), a
folder of Labelme files, or a zip archive of one of these. Several exports become
several videos; equal names are the same class. Train with --data.dataset folder
--data.root ROOT. For research use; not a medical device.
"""

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from data_pipelines.annotations import coco, cvat, labelme
from data_pipelines.annotations.images import Export
from data_pipelines.annotations.writing import Empty, write_videos
from data_pipelines.command_line import exit_with_error, parse_flags, program_name
from data_pipelines.frames import ClassInfo, DataError
from data_pipelines.io.pairs import is_skipped
from data_pipelines.prepare import extract, is_archive
from data_pipelines.sources.folder.classes import read_classes


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to convert.

    Attributes:
        raw: Exports: folders, zip archives or COCO files. An export without subfolders
            becomes one video.
        out: Folder for the videos, new or empty.
        images: Folder of the images, if the exports do not contain them.
        classes: A classes.json with the order and colors of the classes.
        empty: How to label images without annotations: background, or unlabeled.
    """

    raw: tuple[str, ...] = ()
    out: str = ""
    images: str = ""
    classes: str = ""
    empty: Empty = "ask"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; exits with status 2 after a user's error."""
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m data_pipelines.annotations"),
        description=__doc__ or "",
    )
    try:
        convert(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    print(f"{flags.out}: complete")
    return 0


def convert(flags: Flags) -> None:
    """Reads the exports and writes the videos.

    Raises:
        ValueError: a flag is missing.
        DataError: has a line for every error in the exports.
        WriteError: the videos cannot be written.
    """
    for name in ("raw", "out"):
        if not getattr(flags, name):
            raise ValueError(f"--{name} is missing; see --help")
    faults: list[str] = []
    classes: tuple[ClassInfo, ...] | None = None
    if flags.classes:
        classes = read_classes(Path(flags.classes), faults)
    images = Path(flags.images) if flags.images else None
    if images is not None and not images.is_dir():
        faults.append(f"--images {images}: no such folder")
    exports: dict[str, Export] = {}
    with ExitStack() as stack:
        for raw in map(Path, flags.raw):
            name = raw.resolve().stem if raw.is_file() else raw.resolve().name
            if name in exports:
                faults.append(f"{raw}: two exports are named {name}; rename one")
            try:
                exports[name] = _read(raw, images, stack)
            except DataError as error:
                faults += error.faults
        if faults:
            raise DataError(dict.fromkeys(faults))
        write_videos(exports, Path(flags.out), classes=classes, empty=flags.empty)


def _read(raw: Path, images: Path | None, stack: ExitStack) -> Export:
    """Reads an export; archives are unpacked to a folder that `stack` removes."""
    if raw.is_dir():
        folder = raw
    elif not raw.is_file():
        raise DataError([f"{raw}: no such file or folder"])
    elif is_archive(raw):
        folder = Path(stack.enter_context(TemporaryDirectory()))
        extract(raw, folder)
        entries = [path for path in folder.iterdir() if not is_skipped(path.name)]
        if len(entries) == 1 and entries[0].is_dir():
            folder = entries[0]
    else:
        return coco.read(raw, images)
    if cvat.is_export(folder):
        return cvat.read(folder, images)
    if labelme.is_export(folder):
        return labelme.read(folder, images)
    return coco.read(coco.find_file(folder), images)


if __name__ == "__main__":
    sys.exit(main())
