"""Reads a user's videos: frames, masks, and classes named in `classes.json`.

The value of a mask (palette index or gray level) is the class by default; `masks`
describes the alternatives. `tree` defines which mask belongs to which frame.
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
    select_names,
    video_files,
    video_names,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderSource:
    """A `RawSource` of videos in folders. Made by `open_folder`.

    Attributes:
        classes: the classes, background first.
        videos: the videos.
        images: image files by video and frame.
        masks: mask files by video and frame; None without a mask.
        ignore: mask values that are not scored.
        mask_values: how mask values are interpreted.
    """

    classes: tuple[ClassInfo, ...]
    videos: tuple[Video, ...]
    images: tuple[tuple[Path, ...], ...]
    masks: tuple[tuple[Path | None, ...], ...]
    ignore: tuple[int, ...]
    mask_values: MaskValues = "class"

    def files(self, video: int, frame: int) -> tuple[Path, ...]:
        """Returns the files of the image and, if it exists, the mask."""
        files = self.images[video][frame], self.masks[video][frame]
        return tuple(path for path in files if path is not None)

    def unknown_values(self, video: int, frame: int) -> dict[Path, dict[str, int]]:
        """Returns {}: unknown values raise an error in `label`."""
        return {}

    def image(self, video: int, frame: int) -> np.ndarray:
        """Returns the image, uint8 `[H, W, 3]`.

        Raises:
            DataError: the file cannot be decoded.
        """
        return read_image(self.images[video][frame])

    def label(self, video: int, frame: int) -> np.ndarray | None:
        """Returns the classes, uint8 `[H, W]`; None without a mask.

        Raises:
            DataError: the file cannot be decoded, or a value belongs to no class.
        """
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
    """Opens the videos in `root`, one folder each.

    All file names and image headers are checked here; pixels are decoded on demand
    (`data_pipelines.frames.check` decodes them all).

    Args:
        root: contains one folder per video; see `tree`.
        masks: name of the folder with the masks of a video, if they are not in the
            folder of its frames.
        videos: names of the videos to open; None: all.
        classes: class names by mask value, background first. None: those of
            `ROOT/classes.json`; without that file, all masks are read once and the
            classes up to the largest value are named class_0, class_1, ...
        ignore: mask values that are replaced by `IGNORE`.
        allow_missing: accept frames without a mask; their label is None.
        mask_values: how mask values are interpreted; see `sources.folder.masks`. If
            there are two classes and all masks of all videos in `root` have only the
            values 0 and 255, "class" is treated as "binary", and a warning is logged.

    Returns:
        A source with videos and frames in natural order (frame_2 before frame_10).

    Raises:
        FileNotFoundError: `root` is not a folder.
        DataError: one line for every error in the folder tree; if there is any, also
            for every error in the pixels, so that all are reported at once.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    invalid = [value for value in ignore if not 0 <= value <= 255]
    if invalid:
        raise DataError([f"ignore={invalid}: mask values are 0..255"])
    faults: list[str] = []
    if mask_values not in MASK_VALUES:
        faults.append(f"mask_values={mask_values!r}: use {', '.join(MASK_VALUES)}")
    opened: list[Video] = []
    image_paths: list[tuple[Path, ...]] = []
    mask_paths: list[tuple[Path | None, ...]] = []
    for name in select_names(root, videos, faults):
        frames, labels = video_files(root / name, masks, allow_missing, faults)
        paths = tuple(frames.values())
        pairs = tuple(labels.get(stem) for stem in frames)
        faults += size_faults(path for path in (*paths, *pairs) if path is not None)
        missing = frozenset(i for i, path in enumerate(pairs) if path is None)
        opened.append(Video(name, tuple(frames), missing))
        image_paths.append(paths)
        mask_paths.append(pairs)
    table = _class_table(root, classes, mask_values, mask_paths, tuple(ignore), faults)
    source = FolderSource(
        classes=table,
        videos=tuple(opened),
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
                "%s: the masks have only the values 0 and %d (%d masks) and there are "
                "two classes, so %d is read as class 1 (%s)",
                *(root, IGNORE, count, IGNORE, table[1].name),
            )
    if faults:
        faults += _pixel_faults(root, source) if table else []
        raise DataError(
            dict.fromkeys([*faults, *mask_values_advice(faults, mask_values)])
        )
    return source


def _white_masks(root: Path, masks: str) -> int:
    """Counts the masks in `root`; 0 unless 255 is the only foreground value.

    All videos count, not only the selected ones, because the meaning of 255 must not
    depend on which videos are selected.
    """
    count, foreground = 0, False
    for name in video_names(root):
        for path in video_files(root / name, masks, True, [])[1].values():
            try:
                values = np.unique(read_gray(path))
            except (DataError, OSError):  # reported elsewhere
                continue
            if not np.isin(values, (0, IGNORE)).all():
                return 0
            count += 1
            foreground |= IGNORE in values
    return count if foreground else 0


def _pixel_faults(root: Path, source: FolderSource) -> list[str]:
    """Reports errors in the pixels and the classes of all frames."""
    faults: list[str] = []
    total, masks = np.zeros(256, np.int64), 0
    for number, video in enumerate(source.videos):
        counts = np.zeros(256, np.int64)
        for frame in range(len(video.frames)):
            _try_read(source.image, number, frame, faults)
            label = _try_read(source.label, number, frame, faults)
            if label is not None:
                counts += np.bincount(label.ravel(), minlength=256)
                masks += 1
        if counts[IGNORE] and not counts[1:IGNORE].any():
            faults.append(
                f"{root / video.name}: the only foreground value of its masks is "
                f"{IGNORE}, which is not scored"
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


def _try_read(
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
    """Returns the classes of `root/classes.json`; () if it is missing or invalid.

    `open_folder` reports the errors of the file.
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
            faults.append(f"classes: {len(classes)} names; use 2 to {IGNORE}")
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
        return _numbered(_max_class(masks, ignore, faults) + 1)
    if mask_values == "colors" and not file.is_file():
        faults.append(f"{file}: missing; it defines the color of each class")
    if mask_values == "colors" and len({info.color for info in table}) < len(table):
        faults.append(f"{file}: two classes have the same color; colors must differ")
    if mask_values == "binary" and table and len(table) != 2:
        faults.append(f"{root}: {len(table)} classes; binary masks have 2")
    return table


def _max_class(
    masks: Sequence[Sequence[Path | None]], ignore: tuple[int, ...], faults: list[str]
) -> int:
    """Returns the largest class in all masks, at least 1."""
    largest = 1
    for path in (path for video in masks for path in video if path is not None):
        try:
            values = np.unique(read_gray(path))
        except DataError as error:
            faults += [line for line in error.faults if line not in faults]
            continue
        except OSError:  # already reported
            continue
        classes = values[~np.isin(values, (*ignore, IGNORE))]
        largest = max([largest, *classes.tolist()])
    return largest


def _numbered(count: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(f"class_{i}", class_color(i)) for i in range(count))
