"""Finds the frames and masks of a user's videos.

These layouts are supported:

    ROOT/VIDEO/frames/f1.jpg, ROOT/VIDEO/masks/f1.png (or f1_mask.png)
    ROOT/VIDEO/f1.jpg, ROOT/VIDEO/f1.png
    ROOT/VIDEO/f1.png, ROOT/VIDEO/f1_mask.png

In the last two, the files may also be in VIDEO/frames. Masks may also be BMP or TIFF.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.io.names import name_fault
from data_pipelines.io.pairs import (
    MASKS,
    PICTURES,
    files_by_stem,
    frames_and_masks,
    is_skipped,
    masks_by_frame,
    natural_key,
    pairing_faults,
)

MASK_FOLDER = "masks"

SPARSE = (
    "for a video that is partly labeled or unlabeled, prepare the data with "
    "python -m data_pipelines.prepare --allow-missing, and train on the result"
)


def video_names(root: str | Path) -> list[str]:
    """Returns the names of the videos in `root` in natural order."""
    folders = Path(root).iterdir() if Path(root).is_dir() else ()
    names = (path.name for path in folders if _is_video(path))
    return sorted(names, key=natural_key)


def select_names(
    root: Path, names: Sequence[str] | None, faults: list[str]
) -> list[str]:
    """Returns those of `names` that are videos in `root`; None selects all videos.

    Unknown and invalid names are added to `faults`.
    """
    existing = video_names(root)
    if not existing:
        faults.append(
            f"{root}: no videos; it must contain folders VIDEO/frames{_hint(root)}"
        )
        return []
    if names is None:
        names = existing
    faults += [
        f"{root / name}: no such video; the videos are {', '.join(existing)}"
        for name in names
        if name not in existing
    ]
    selected = [name for name in dict.fromkeys(names) if name in existing]
    faults += [
        f"{root / name}: the name {fault}; rename it"
        for name in selected
        if (fault := name_fault(name))
    ]
    return selected


def video_files(
    video: Path, masks: str, allow_missing: bool, faults: list[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Returns (frames, masks) of a video by the frames' stems, in natural order.

    Args:
        video: folder of the video.
        masks: name of the folder with the masks, if they are not with the frames.
        allow_missing: accept frames without a mask.
        faults: errors are added to it.
    """
    frame_folder, mask_folder = _frame_folder(video), video / masks
    every = not allow_missing
    if mask_folder.is_dir():
        frames = files_by_stem(frame_folder, PICTURES, faults)
        labels = files_by_stem(mask_folder, MASKS, faults)
        labels = masks_by_frame(frames, labels)
    else:
        frames, labels = {}, {}
        if masks == MASK_FOLDER:  # unless another folder was requested
            frames, labels = frames_and_masks(frame_folder, faults)
        if labels:
            mask_folder = frame_folder
        else:
            frames = files_by_stem(frame_folder, PICTURES, faults)
            if every:
                faults.append(f"{video}: no folder {masks!r}; {_mask_hint(video)}")
    unpaired = pairing_faults(frames, labels, mask_folder, every=every)
    unmasked = sum(stem not in labels for stem in frames)
    if unpaired and every and unmasked:
        unpaired[unmasked - 1] += f"; {SPARSE}"
    faults += unpaired
    return frames, labels


def _is_video(path: Path) -> bool:
    if is_skipped(path.name) or not path.is_dir():
        return False
    return (path / "frames").is_dir() or bool(frames_and_masks(path, [])[1])


def _frame_folder(video: Path) -> Path:
    frames = video / "frames"
    return frames if frames.is_dir() else video


def _hint(root: Path) -> str:
    """Returns a hint about a folder without videos: it may be an export or a parent."""
    entries = sorted(root.iterdir()) if root.is_dir() else []
    exported = [path.name for path in entries if path.suffix == ".json"]
    if (root / "SegmentationClass").is_dir() or set(exported) - {"classes.json"}:
        return (
            "; python -m data_pipelines.annotations converts exports of annotation "
            "tools"
        )
    if (root / "frames").is_dir():
        return f"; it is itself a video, so use {root.resolve().parent}"
    child = next((path for path in entries if video_names(path)), None)
    return "" if child is None else f"; its folder {child.name} does, so use that"


def _mask_hint(video: Path) -> str:
    """Returns a hint about a missing mask folder, with the names of other folders."""
    others = sorted(
        path.name
        for path in video.iterdir()
        if path.is_dir() and path.name != "frames" and not is_skipped(path.name)
    )
    hint = f"name another one of {', '.join(others)}" if others else "add it"
    return f"{hint}, or {SPARSE}"
