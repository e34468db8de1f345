"""Reads a user's own videos: frames and masks, whose classes `classes.json` may name.

A mask's value (palette index or grey level) is the class, unless it is asked to be read
in another way, see `masks`; which file is whose mask, see `tree`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from data_pipelines.io.pairs import size_faults
from data_pipelines.sources.folder.classes import class_color, read_classes
from data_pipelines.sources.folder.masks import (
    MASK_VALUES,
    MaskValues,
    mask_values_advice,
    read_mask,
)
from data_pipelines.sources.folder.tree import (
    video_files,
    video_names,
    wanted_videos,
)

_log = logging.getLogger(__name__)


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
        root: holds one folder a video, see `tree`.
        masks: name of the folder with a video's masks, if they are not beside its
            frames.
        videos: names of the videos wanted; all of them if not given.
        classes: class names by mask value, background first. If not given they come
            from `ROOT/classes.json`, or else from the masks: as many as the largest
            value needs (then all masks are read once), called class_0, class_1, ...
        ignore: mask values that are not scored; they become `IGNORE`.
        allow_missing: accept frames without a mask, whose label is None.
        mask_values: what a mask's values mean, see `sources.folder.masks`. "class" is
            taken as "binary" where there are two classes and no mask of any video under
            `root` has another value than 0 and 255; a warning is logged.

    Returns:
        The source, videos and frames in natural order (frame_2 before frame_10).

    Raises:
        FileNotFoundError: `root` is no folder.
        DataError: one line for every fault in the folder's tree; if there is one, also
            for those of the pixels, so that one report has all of them.
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
    for name in wanted_videos(root, videos, faults):
        frames, labels = video_files(root / name, masks, allow_missing, faults)
        paths = tuple(frames.values())
        pairs = tuple(labels.get(stem) for stem in frames)
        faults += size_faults(path for path in (*paths, *pairs) if path is not None)
        missing = frozenset(i for i, path in enumerate(pairs) if path is None)
        found.append(Video(name, tuple(frames), missing))
        image_paths.append(paths)
        mask_paths.append(pairs)
    table = _class_table(root, classes, mask_values, mask_paths, tuple(ignore), faults)
    source = FolderSource(
        classes=table,
        videos=tuple(found),
        images=tuple(image_paths),
        masks=tuple(mask_paths),
        ignore=tuple(ignore),
        mask_values=mask_values,
    )
    if mask_values == "class" and len(table) == 2 and IGNORE not in ignore:
        count = _white_masks(root, masks)
        if count:
            source = replace(source, mask_values="binary")
            _log.warning(
                "%s: the masks have no value but 0 and %d (%d masks) and there are two "
                "classes, so %d is read as class 1 (%s)",
                *(root, IGNORE, count, IGNORE, table[1].name),
            )
    if faults:
        faults += _pixel_faults(root, source) if table else []
        raise DataError(
            dict.fromkeys([*faults, *mask_values_advice(faults, mask_values)])
        )
    return source


def _white_masks(root: Path, masks: str) -> int:
    """How many masks there are under `root`, if 255 is the only foreground of all.

    All videos count, not those that are wanted alone: what 255 means must not depend on
    which videos train. Ends at the first mask of another value.
    """
    count, foreground = 0, False
    for name in video_names(root):
        for path in video_files(root / name, masks, True, [])[1].values():
            try:
                values = np.unique(read_gray(path))
            except (DataError, OSError):  # is a fault elsewhere
                continue
            if not np.isin(values, (0, IGNORE)).all():
                return 0
            count += 1
            foreground |= IGNORE in values
    return count if foreground else 0


def _pixel_faults(root: Path, source: FolderSource) -> list[str]:
    """What is wrong with the pixels of pairs, and with their classes."""
    faults: list[str] = []
    total, masks = np.zeros(256, np.int64), 0
    for number, video in enumerate(source.videos):
        counts = np.zeros(256, np.int64)
        for frame in range(len(video.frames)):
            _tried(source.image, number, frame, faults)
            label = _tried(source.label, number, frame, faults)
            if label is not None:
                counts += np.bincount(label.ravel(), minlength=256)
                masks += 1
        if counts[IGNORE] and not counts[1:IGNORE].any():
            faults.append(
                f"{root / video.name}: the only foreground of its masks is {IGNORE}, "
                "which is not scored"
            )
        total += counts
    absent = [
        f"{index} ({info.name})"
        for index, info in enumerate(source.classes)
        if index and not total[index]
    ]
    file = root / "classes.json"
    if absent and masks and file.is_file():
        faults.append(f"{file}: no mask has a pixel of class {', '.join(absent)}")
    return faults


def _tried(
    read: Callable[[int, int], np.ndarray | None],
    video: int,
    frame: int,
    faults: list[str],
) -> np.ndarray | None:
    try:
        return read(video, frame)
    except DataError as error:
        faults += error.faults
    except OSError as error:
        faults.append(str(error))
    return None


def named_classes(root: str | Path) -> tuple[ClassInfo, ...]:
    """The classes of `root/classes.json`; none if there is no such file or it is wrong.

    `open_folder` says what is wrong with it.
    """
    file = Path(root) / "classes.json"
    return read_classes(file, []) if file.is_file() else ()


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
            return ()
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
