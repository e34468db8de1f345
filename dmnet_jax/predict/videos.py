"""Discovery of videos in a folder or by a pattern."""

import glob
from pathlib import Path
from typing import NamedTuple

from data_pipelines.io.names import file_name, name_fault
from data_pipelines.io.pairs import PICTURES, is_skipped, list_files, natural_key
from dmnet_jax.video.sources import RENDERED, SourceError, is_pattern, sources_in


class Video(NamedTuple):
    """One of several videos.

    Attributes:
        name: name of its results folder.
        source: argument of `open_source`.
    """

    name: str
    source: str


def find_videos(text: str, out: Path | None = None) -> list[Video]:
    """Finds the videos in a folder, or by a pattern such as "day*/*.mp4".

    Videos are video files, folders of images, and folders with a subfolder `frames` of
    images. They are named by their paths relative to the folder, or to the parts of the
    pattern before the first wildcard.

    Args:
        text: value of `--source`.
        out: folder for results, which may be inside the folder; ignored in the search.

    Returns:
        The videos in natural order; an empty list if `text` is a single source for
        `open_source`.

    Raises:
        SourceError: the pattern matches no video, or two videos have the same name.
    """
    path = Path(text)
    if text == RENDERED:
        return []
    if path.is_dir():
        return [] if list_files(path) else _name_videos(path, sources_in(path))
    if not is_pattern(text):
        return []
    root_parts = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        root_parts.append(part)
    matches = [Path(match) for match in glob.glob(text, recursive=True)]
    results = None if out is None else out.resolve()
    matches = [
        match
        for match in matches
        if not is_skipped(match.name)
        and results not in (match.resolve(), *match.resolve().parents)
    ]
    if any(_is_image(match) for match in matches):
        return []
    paths = {source for match in matches for source in sources_in(match, alone=True)}
    if not paths:
        raise SourceError(f"{text}: matches no video and no folder of images")
    return _name_videos(Path(*root_parts), paths)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def _name_videos(root: Path, paths: set[Path] | list[Path]) -> list[Video]:
    """Names videos by their paths below `root`, in natural order."""
    by_name: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: natural_key(str(path))):
        relative = path.relative_to(root) if path != root else Path(path.name)
        parts = [part for part in relative.parts if part != "frames"] or [root.name]
        if path.is_file():
            parts[-1] = Path(parts[-1]).stem
        name = file_name(*parts, suffix="")
        if name in by_name:
            name = file_name(*parts, suffix=path.suffix)
        if name in by_name:
            raise SourceError(
                f"{path}: has the same name as {by_name[name]}, {name}; rename it"
            )
        if fault := name_fault(name):
            raise SourceError(f"{path}: the name {fault}; rename it")
        by_name[name] = path
    return [Video(name, str(path)) for name, path in by_name.items()]
