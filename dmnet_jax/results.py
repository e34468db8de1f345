"""What a run leaves to be read: tables, `results.json`, overlay pictures."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.frames import ClassInfo, FrameSource, resize_image
from dmnet_jax.evaluation import Evaluation, Prediction
from dmnet_jax.overlay import contact_sheet, side_by_side
from dmnet_jax.provenance import versions
from dmnet_jax.scores import measured, tables, tables_of

__all__ = ["Overlays", "tables", "write_json", "write_results"]

OVERLAYS_A_VIDEO = 3


def write_results(
    folder: Path,
    evaluation: Evaluation,
    classes: Sequence[ClassInfo],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes `results.json`, `results.md` and `frames.csv` into `folder`.

    Args:
        folder: made if missing.
        evaluation: what was counted.
        classes: names, background first.
        about: what made the weights, of `provenance.describe`.

    Returns:
        What `results.json` holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [info.name for info in classes]
    results = {
        "fold": about.get("fold"),
        "split_sha256": about.get("split_sha256"),
        "versions": versions(),
        **measured(evaluation, names),
        "about": about,
    }
    write_json(folder / "results.json", results)
    (folder / "results.md").write_text(tables_of(evaluation, results) + "\n")
    _write_frames(folder / "frames.csv", evaluation, names)
    return results


def write_json(path: Path, tree: Any) -> None:
    """Writes indented JSON; an undefined score (NaN) becomes null."""
    path.write_text(json.dumps(_no_nan(tree), indent=2, allow_nan=False) + "\n")


def _no_nan(tree: Any) -> Any:
    """JSON has no NaN: an undefined score is null."""
    if isinstance(tree, dict):
        return {name: _no_nan(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_no_nan(value) for value in tree]
    if isinstance(tree, float) and not np.isfinite(tree):
        return None
    return tree


def _write_frames(path: Path, evaluation: Evaluation, names: Sequence[str]) -> None:
    """A row a frame and class: pixel counts, from which every score follows."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["video", "frame", "class", "intersection", "predicted", "labelled"]
            + ["surface_distance", "flickered", "steady"]
            + ["confidence", "similarity", "admitted"]
        )
        for i, counts in enumerate(evaluation.counts.tolist()):
            of_frame = [
                *evaluation.flicker[i].tolist(),
                f"{evaluation.confidence[i]:.6g}",
                f"{evaluation.similarity[i]:.6g}",
                int(evaluation.admitted[i]),
            ]
            for name, row, surface in zip(
                names, counts, evaluation.surface[i], strict=True
            ):
                frame = [evaluation.videos[i], evaluation.frames[i], name]
                near = "" if np.isnan(surface) else f"{surface:.6g}"
                writer.writerow([*frame, *row, near, *of_frame])


class Overlays:
    """Saves pictures of some predictions while an evaluation goes on.

    `evaluate(..., on_frame=overlays)`: a few frames of each video, evenly spaced, as
    `FOLDER/VIDEO_FRAME.png` (picture, prediction, truth), and all of them in
    `FOLDER/sheet.png`.
    """

    def __init__(self, folder: Path, source: FrameSource):
        self._folder, self._source = folder, source
        self._pictures: list[Any] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, video: int, result: Prediction) -> None:
        info = self._source.videos[video]
        wanted = np.linspace(0, len(info.frames) - 1, OVERLAYS_A_VIDEO + 1)[1:]
        if result.frame not in wanted.astype(int):
            return
        # At the size that is scored, whatever the network saw.
        image = resize_image(
            self._source.image(video, result.frame), result.label.shape
        )
        classes = self._source.classes
        picture = side_by_side(
            image,
            result.label,
            result.truth,
            colors=[info.color for info in classes],
            names=[info.name for info in classes],
        )
        picture.save(self._folder / f"{info.name}_{info.frames[result.frame]}.png")
        self._pictures.append(picture)

    def finish(self) -> None:
        """Writes the contact sheet."""
        if self._pictures:
            sheet = contact_sheet([[picture] for picture in self._pictures])
            sheet.save(self._folder / "sheet.png")
