"""Reads `ROOT/VIDEO/frames/NAME.jpg` with `ROOT/VIDEO/masks/NAME.png`.

A mask's value (palette index or grey level) is the class. `ROOT/classes.json` may name
the classes: `[{"name": "background", "color": [0, 0, 0]}, ...]`, value 0 first.
"""

import colorsys
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    DataError,
    Video,
    read_grey,
    read_image,
    read_label,
)
from data_pipelines.pairs import (
    PICTURES,
    files_by_stem,
    is_skipped,
    natural_key,
    pairing_faults,
    size_faults,
)


@dataclass(frozen=True)
class FolderSource:
    """Videos in folders; a `RawSource`. Made by `open_folder`."""

    classes: tuple[ClassInfo, ...]
    videos: tuple[Video, ...]
    images: tuple[tuple[Path, ...], ...]
    masks: tuple[tuple[Path | None, ...], ...]
    ignore: tuple[int, ...]

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """The picture and, if there is one, its mask."""
        files = self.images[video][frame], self.masks[video][frame]
        return tuple(path for path in files if path is not None)

    def odd(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Nothing: a value that is no class's is an error here."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """The picture, uint8 `[H, W, 3]`; `DataError` if it cannot be decoded."""
        return read_image(self.images[video][frame])

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """The classes, uint8 `[H, W]`; `DataError` for a value that is no class."""
        path = self.masks[video][frame]
        if path is None:
            return None
        return read_label(path, len(self.classes), self.ignore)


def open_folder(
    root: str | Path,
    *,
    masks: str = "masks",
    videos: Sequence[str] | None = None,
    classes: Sequence[str | ClassInfo] | None = None,
    ignore: Sequence[int] = (),
    allow_missing: bool = False,
) -> FolderSource:
    """Opens the videos under `root`, one folder each.

    File names and image headers are checked here, every one of them; pixels are
    decoded when asked for (`data_pipelines.frames.check` decodes them all).

    Args:
      root: holds one folder a video, each with a folder `frames` (JPEG or PNG).
      masks: name of the folder with a video's masks, PNG, matched to frames by stem.
      videos: names of the videos wanted; all of them if not given.
      classes: class names by mask value, background first. If not given they come
        from `ROOT/classes.json`, or else from the masks: as many as the largest value
        needs (then all masks are read once), called class_0, class_1, ...
      ignore: mask values that are not scored; they become `IGNORE`.
      allow_missing: accept frames without a mask, whose label is None.

    Returns:
      The source, videos and frames in natural order (frame_2 before frame_10).

    Raises:
      FileNotFoundError: `root` is no folder.
      DataError: one line for every fault found in the folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    wrong = [value for value in ignore if not 0 <= value <= 255]
    if wrong:
        raise DataError([f"ignore={wrong}: mask values are 0..255"])
    faults: list[str] = []
    found: list[Video] = []
    image_paths: list[tuple[Path, ...]] = []
    mask_paths: list[tuple[Path | None, ...]] = []
    for name in _video_names(root, videos, faults):
        frames = files_by_stem(root / name / "frames", PICTURES, faults)
        labels = _masks_of(root / name, masks, allow_missing, faults)
        place, every = root / name / masks, not allow_missing
        faults += pairing_faults(frames, labels, place, every=every)
        paths = tuple(frames.values())
        pairs = tuple(labels.get(stem) for stem in frames)
        faults += size_faults(path for path in (*paths, *pairs) if path is not None)
        missing = frozenset(i for i, path in enumerate(pairs) if path is None)
        found.append(Video(name, tuple(frames), missing))
        image_paths.append(paths)
        mask_paths.append(pairs)
    table = _class_table(root, classes, mask_paths, tuple(ignore), faults)
    if faults:
        raise DataError(faults)
    return FolderSource(
        table, tuple(found), tuple(image_paths), tuple(mask_paths), tuple(ignore)
    )


def named_classes(root: str | Path) -> tuple[ClassInfo, ...]:
    """The classes of `root/classes.json`; none if there is no such file or it is wrong.

    `open_folder` says what is wrong with it.
    """
    file = Path(root) / "classes.json"
    return _read_classes(file, []) if file.is_file() else ()


def _video_names(
    root: Path, wanted: Sequence[str] | None, faults: list[str]
) -> list[str]:
    known = sorted(
        (
            path.name
            for path in root.iterdir()
            if not is_skipped(path.name) and (path / "frames").is_dir()
        ),
        key=natural_key,
    )
    if not known:
        faults.append(f"{root}: no videos; it must hold folders VIDEO/frames")
        return []
    if wanted is None:
        return known
    unknown = [name for name in wanted if name not in known]
    faults += [
        f"{root / name}: no such video; the videos are {', '.join(known)}"
        for name in unknown
    ]
    return [name for name in dict.fromkeys(wanted) if name in known]


def _masks_of(
    video: Path, masks: str, allow_missing: bool, faults: list[str]
) -> dict[str, Path]:
    """The masks by stem; none where there is no folder to pair frames with."""
    if (video / masks).is_dir():
        return files_by_stem(video / masks, (".png",), faults)
    if not allow_missing:
        others = sorted(
            path.name
            for path in video.iterdir()
            if path.is_dir() and path.name != "frames" and not is_skipped(path.name)
        )
        hint = f"name another (here: {', '.join(others)})" if others else "add it"
        faults.append(f"{video}: no folder {masks!r}; {hint} or allow missing masks")
    return {}


def _class_table(
    root: Path,
    classes: Sequence[str | ClassInfo] | None,
    masks: Sequence[Sequence[Path | None]],
    ignore: tuple[int, ...],
    faults: list[str],
) -> tuple[ClassInfo, ...]:
    file = root / "classes.json"
    if classes is not None:
        if not 2 <= len(classes) <= IGNORE:
            faults.append(f"classes: {len(classes)} given; 2 to {IGNORE} are possible")
        return tuple(
            item if isinstance(item, ClassInfo) else ClassInfo(item, _color(i))
            for i, item in enumerate(classes)
        )
    if file.is_file():
        return _read_classes(file, faults)
    highest = 1
    for path in (path for video in masks for path in video if path is not None):
        try:
            values = np.unique(read_grey(path))
        except DataError as error:
            faults += [line for line in error.faults if line not in faults]
            continue
        except OSError:  # is a fault already
            continue
        kept = values[~np.isin(values, (*ignore, IGNORE))]
        highest = max(highest, *kept.tolist()) if kept.size else highest
    return tuple(ClassInfo(f"class_{i}", _color(i)) for i in range(highest + 1))


def _read_classes(file: Path, faults: list[str]) -> tuple[ClassInfo, ...]:
    example = '[{"name": "background", "color": [0, 0, 0]}, ...]'
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{file}: not valid JSON ({error}); write {example}")
        return ()
    if not isinstance(entries, list) or not 2 <= len(entries) <= IGNORE:
        faults.append(f"{file}: must list 2 to {IGNORE} classes: {example}")
        return ()
    table = []
    for i, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        name, color = fields.get("name"), fields.get("color", list(_color(i)))
        if not isinstance(name, str) or not name:
            faults.append(f"{file}: class {i}: field name must be a text: {example}")
        elif not _is_color(color):
            faults.append(f"{file}: class {i}: field color must be 3 numbers 0..255")
        else:
            table.append(ClassInfo(name, (color[0], color[1], color[2])))
    names = [info.name for info in table]
    faults += [
        f"{file}: class name {name!r} is used twice; names must differ"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    return tuple(table)


def _is_color(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def _color(index: int) -> tuple[int, int, int]:
    """Black for the background, then hues a golden angle apart."""
    if index == 0:
        return (0, 0, 0)
    red, green, blue = colorsys.hsv_to_rgb(0.618034 * index % 1, 0.75, 0.95)
    return (round(255 * red), round(255 * green), round(255 * blue))
