"""Reads `ROOT/VIDEO/frames/NAME.jpg` with `ROOT/VIDEO/masks/NAME.png`.

A mask's value (palette index or grey level) is the class, unless it is asked to be read
in another way, see `masks`. `ROOT/classes.json` may name the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.frames import (
    IGNORE,
    ClassInfo,
    DataError,
    Video,
    read_gray,
    read_image,
)
from data_pipelines.io.names import name_fault
from data_pipelines.io.pairs import (
    PICTURES,
    files_by_stem,
    is_skipped,
    natural_key,
    pairing_faults,
    size_faults,
)
from data_pipelines.sources.folder.classes import class_color, read_classes
from data_pipelines.sources.folder.masks import MASK_VALUES, MaskValues, read_mask

SPARSE = (
    "for a video that is labelled in part or not at all, prepare the data with "
    "python -m data_pipelines.prepare --allow-missing, and train on what that writes"
)


@dataclass(frozen=True)
class FolderSource:
    """Videos in folders; a `RawSource`. Made by `open_folder`."""

    classes: tuple[ClassInfo, ...]
    videos: tuple[Video, ...]
    images: tuple[tuple[Path, ...], ...]
    masks: tuple[tuple[Path | None, ...], ...]
    ignore: tuple[int, ...]
    mask_values: MaskValues = "class"

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
        return read_mask(path, self.classes, self.mask_values, self.ignore)


def open_folder(
    root: str | Path,
    *,
    masks: str = "masks",
    videos: Sequence[str] | None = None,
    classes: Sequence[str | ClassInfo] | None = None,
    ignore: Sequence[int] = (),
    allow_missing: bool = False,
    mask_values: MaskValues = "class",
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
      mask_values: what a mask's values mean, see `sources.folder.masks`.

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
    if mask_values not in MASK_VALUES:
        faults.append(f"mask_values={mask_values!r}: use {', '.join(MASK_VALUES)}")
    found: list[Video] = []
    image_paths: list[tuple[Path, ...]] = []
    mask_paths: list[tuple[Path | None, ...]] = []
    for name in _video_names(root, videos, faults):
        frames = files_by_stem(root / name / "frames", PICTURES, faults)
        labels = _masks_of(root / name, masks, allow_missing, faults)
        place, every = root / name / masks, not allow_missing
        unpaired = pairing_faults(frames, labels, place, every=every)
        without = sum(stem not in labels for stem in frames)
        if unpaired and every and without:
            unpaired[without - 1] += f"; {SPARSE}"
        faults += unpaired
        paths = tuple(frames.values())
        pairs = tuple(labels.get(stem) for stem in frames)
        faults += size_faults(path for path in (*paths, *pairs) if path is not None)
        missing = frozenset(i for i, path in enumerate(pairs) if path is None)
        found.append(Video(name, tuple(frames), missing))
        image_paths.append(paths)
        mask_paths.append(pairs)
    table = _class_table(root, classes, mask_values, mask_paths, tuple(ignore), faults)
    if faults:
        raise DataError(faults)
    return FolderSource(
        classes=table,
        videos=tuple(found),
        images=tuple(image_paths),
        masks=tuple(mask_paths),
        ignore=tuple(ignore),
        mask_values=mask_values,
    )


def named_classes(root: str | Path) -> tuple[ClassInfo, ...]:
    """The classes of `root/classes.json`; none if there is no such file or it is wrong.

    `open_folder` says what is wrong with it.
    """
    file = Path(root) / "classes.json"
    return read_classes(file, []) if file.is_file() else ()


def video_names(root: str | Path) -> list[str]:
    """The videos under `root` in natural order, by name; nothing is opened."""
    folders = Path(root).iterdir() if Path(root).is_dir() else ()
    names = (
        path.name
        for path in folders
        if not is_skipped(path.name) and (path / "frames").is_dir()
    )
    return sorted(names, key=natural_key)


def _video_names(
    root: Path, wanted: Sequence[str] | None, faults: list[str]
) -> list[str]:
    known = video_names(root)
    if not known:
        inside = sorted(root.iterdir()) if root.is_dir() else []
        lower = next((path for path in inside if video_names(path)), None)
        hint = "" if lower is None else f"; {lower.name} in it does, so give that"
        faults.append(f"{root}: no videos; it must hold folders VIDEO/frames{hint}")
        return []
    if wanted is None:
        wanted = known
    unknown = [name for name in wanted if name not in known]
    faults += [
        f"{root / name}: no such video; the videos are {', '.join(known)}"
        for name in unknown
    ]
    found = [name for name in dict.fromkeys(wanted) if name in known]
    faults += [
        f"{root / name}: the name {fault}; rename it"
        for name in found
        if (fault := name_fault(name))
    ]
    return found


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
        faults.append(f"{video}: no folder {masks!r}; {hint}, or {SPARSE}")
    return {}


def _class_table(
    root: Path,
    classes: Sequence[str | ClassInfo] | None,
    mask_values: MaskValues,
    masks: Sequence[Sequence[Path | None]],
    ignore: tuple[int, ...],
    faults: list[str],
) -> tuple[ClassInfo, ...]:
    file = root / "classes.json"
    table: tuple[ClassInfo, ...] = ()
    if classes is not None:
        if not 2 <= len(classes) <= IGNORE:
            faults.append(f"classes: {len(classes)} given; 2 to {IGNORE} are possible")
        table = tuple(
            item if isinstance(item, ClassInfo) else ClassInfo(item, class_color(i))
            for i, item in enumerate(classes)
        )
    elif file.is_file():
        table = read_classes(file, faults)
    elif mask_values == "binary":
        table = _numbered(2)
    elif mask_values == "class":
        return _numbered(_highest(masks, ignore, faults) + 1)
    if mask_values == "colors" and not file.is_file():
        faults.append(f"{file}: missing; it says which color is which class")
    if mask_values == "colors" and len({info.color for info in table}) < len(table):
        faults.append(f"{file}: two classes of one color; colors must differ")
    if mask_values == "binary" and table and len(table) != 2:
        faults.append(f"{root}: {len(table)} classes; binary masks have 2")
    return table


def _highest(
    masks: Sequence[Sequence[Path | None]], ignore: tuple[int, ...], faults: list[str]
) -> int:
    """The largest class of any mask, at least 1."""
    highest = 1
    for path in (path for video in masks for path in video if path is not None):
        try:
            values = np.unique(read_gray(path))
        except DataError as error:
            faults += [line for line in error.faults if line not in faults]
            continue
        except OSError:  # is a fault already
            continue
        kept = values[~np.isin(values, (*ignore, IGNORE))]
        highest = max(highest, *kept.tolist()) if kept.size else highest
    return highest


def _numbered(count: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(f"class_{i}", class_color(i)) for i in range(count))
