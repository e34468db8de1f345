"""Where the files of a user's own videos are, and which frame and mask are a pair.

    ROOT/VIDEO/frames/f1.jpg, ROOT/VIDEO/masks/f1.png (or f1_mask.png)
    ROOT/VIDEO/f1.jpg, ROOT/VIDEO/f1.png
    ROOT/VIDEO/f1.png, ROOT/VIDEO/f1_mask.png

In the last two, VIDEO/frames may be the folder too. Masks may also be BMP or TIFF.
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
    "for a video that is labelled in part or not at all, prepare the data with "
    "python -m data_pipelines.prepare --allow-missing, and train on what that writes"
)


def video_names(root: str | Path) -> list[str]:
    """The videos under `root` in natural order, by name; nothing is opened."""
    folders = Path(root).iterdir() if Path(root).is_dir() else ()
    names = (path.name for path in folders if _is_video(path))
    return sorted(names, key=natural_key)


def wanted_videos(
    root: Path, wanted: Sequence[str] | None, faults: list[str]
) -> list[str]:
    """Those of the wanted videos that there are; all if None."""
    known = video_names(root)
    if not known:
        faults.append(
            f"{root}: no videos; it must hold folders VIDEO/frames{_hint(root)}"
        )
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


def video_files(
    video: Path, masks: str, allow_missing: bool, faults: list[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """(frames, masks) of a video by the frames' stems, in natural order.

    Args:
        video: its folder.
        masks: name of the folder with masks, if they are not beside the frames.
        allow_missing: accept frames without a mask.
        faults: what is wrong is appended here.
    """
    place, every = _place(video), not allow_missing
    if (video / masks).is_dir():
        frames = files_by_stem(place, PICTURES, faults)
        labels = files_by_stem(video / masks, MASKS, faults)
        labels, place = masks_by_frame(frames, labels), video / masks
    else:
        frames, labels = {}, {}
        if masks == MASK_FOLDER:  # no other was asked for
            frames, labels = frames_and_masks(place, faults)
    if not labels and not (video / masks).is_dir():
        frames, place = files_by_stem(place, PICTURES, faults), video / masks
        if every:
            faults.append(f"{video}: no folder {masks!r}; {_others(video)}")
    unpaired = pairing_faults(frames, labels, place, every=every)
    without = sum(stem not in labels for stem in frames)
    if unpaired and every and without:
        unpaired[without - 1] += f"; {SPARSE}"
    faults += unpaired
    return frames, labels


def _is_video(path: Path) -> bool:
    if is_skipped(path.name) or not path.is_dir():
        return False
    return (path / "frames").is_dir() or bool(frames_and_masks(path, [])[1])


def _place(video: Path) -> Path:
    frames = video / "frames"
    return frames if frames.is_dir() else video


def _hint(root: Path) -> str:
    """What the user may have meant by a folder without videos."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    exported = [path.name for path in inside if path.suffix == ".json"]
    if (root / "SegmentationClass").is_dir() or set(exported) - {"classes.json"}:
        return "; python -m data_pipelines.annotations makes them of what tools export"
    lower = next((path for path in inside if video_names(path)), None)
    return "" if lower is None else f"; {lower.name} in it does, so give that"


def _others(video: Path) -> str:
    others = sorted(
        path.name
        for path in video.iterdir()
        if path.is_dir() and path.name != "frames" and not is_skipped(path.name)
    )
    hint = f"name another (here: {', '.join(others)})" if others else "add it"
    return f"{hint}, or {SPARSE}"
