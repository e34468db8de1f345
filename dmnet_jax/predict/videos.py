"""Which videos a `--source` names, where it names several."""

import glob
from pathlib import Path
from typing import NamedTuple

from data_pipelines.io.names import file_name, name_fault
from data_pipelines.io.pairs import PICTURES, is_skipped, list_files, natural_key
from dmnet_jax.video.sources import RENDERED, SourceError, is_pattern, sources_in


class Video(NamedTuple):
    """One of several videos.

    Attributes:
        name: of its folder of results.
        source: as `open_source` takes it.
    """

    name: str
    source: str


def find_videos(text: str, out: Path | None = None) -> list[Video]:
    """The videos of a folder of videos, or of a pattern such as "day*/*.mp4".

    Videos are video files, folders of pictures, and folders that hold such a folder
    called frames. They are named by their places below the folder, or below the first
    part of the pattern that has a wildcard.

    Args:
        text: a user's `--source`.
        out: folder for results, which may be below it: what is in it is no video.

    Returns:
        In natural order; none if it names one source, which `open_source` opens.

    Raises:
        SourceError: a pattern that fits nothing, or two videos of one name.
    """
    path = Path(text)
    if text == RENDERED:
        return []
    if path.is_dir():
        return [] if list_files(path) else _named(path, sources_in(path))
    if not is_pattern(text):
        return []
    fixed = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    matches = [Path(match) for match in glob.glob(text, recursive=True)]
    results = None if out is None else out.resolve()
    matches = [
        match
        for match in matches
        if not is_skipped(match.name)
        and results not in (match.resolve(), *match.resolve().parents)
    ]
    if any(_is_picture(match) for match in matches):
        return []
    found = {place for match in matches for place in sources_in(match, alone=True)}
    if not found:
        raise SourceError(f"{text}: no video and no folder of pictures fits it")
    return _named(Path(*fixed), found)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def _named(root: Path, places: set[Path] | list[Path]) -> list[Video]:
    ordered = sorted(places, key=lambda place: natural_key(str(place)))
    named: dict[str, Path] = {}
    for place in ordered:
        inside = place.relative_to(root) if place != root else Path(place.name)
        parts = [part for part in inside.parts if part != "frames"] or [root.name]
        if place.is_file():
            parts[-1] = Path(parts[-1]).stem
        name = file_name(*parts, suffix="")
        if name in named:
            name = file_name(*parts, suffix=place.suffix)
        if name in named:
            raise SourceError(f"{place}: is called {name}, as {named[name]}; rename it")
        if fault := name_fault(name):
            raise SourceError(f"{place}: the name {fault}; rename it")
        named[name] = place
    return [Video(name, str(place)) for name, place in named.items()]
