"""Writes evaluation results: tables, `results.json` and overlay images."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.frames import ClassInfo, FrameSource, resize_image, resize_label
from data_pipelines.io.files import atomic_write, make_folder, write_text
from data_pipelines.io.names import file_name
from dmnet_jax.checkpoint.provenance import versions, weights_sha256
from dmnet_jax.evaluation.scores import measured, tables, tables_of
from dmnet_jax.evaluation.videos import Evaluation, Prediction
from dmnet_jax.metrics import confusion_matrix, counts_of
from dmnet_jax.video.overlay import contact_sheet, side_by_side

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
        folder: the output folder; created if missing.
        evaluation: the evaluation to write.
        classes: the classes, background first.
        about: provenance of the weights, from `provenance.describe`.

    Returns:
        The content of `results.json`.
    """
    make_folder(folder)
    names = [info.name for info in classes]
    results = {
        "fold": about.get("fold"),
        "split_sha256": about.get("split_sha256"),
        "versions": versions(),
        **measured(evaluation, names),
        "about": about,
    }
    write_text(folder / "results.md", tables_of(evaluation, results) + "\n")
    _write_frames(folder / "frames.csv", evaluation, names)
    # Written last: if it exists, all other files exist.
    write_json(folder / "results.json", results)
    return results


def results_are_written(folder: Path, variables: Mapping[str, Any]) -> bool:
    """Returns whether `folder` has complete results of these variables."""
    try:
        text = (folder / "results.json").read_text(encoding="utf-8")
        return json.loads(text)["weights_sha256"] == weights_sha256(variables)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def write_json(path: Path, tree: Any) -> None:
    """Writes indented JSON; undefined scores (NaN) become null."""
    write_text(path, json.dumps(_no_nan(tree), indent=2, allow_nan=False) + "\n")


def _no_nan(tree: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have, by None."""
    if isinstance(tree, dict):
        return {name: _no_nan(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_no_nan(value) for value in tree]
    if isinstance(tree, float) and not np.isfinite(tree):
        return None
    return tree


def _write_frames(path: Path, evaluation: Evaluation, names: Sequence[str]) -> None:
    """Writes one row per frame and class: pixel counts, from which scores follow."""
    with (
        atomic_write(path) as fresh,
        fresh.open("w", newline="", encoding="utf-8") as file,
    ):
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
    """Writes overlay images and a timeline during an evaluation.

    Pass it as `evaluate(..., on_frame=overlays)` and call `finish` at the end. Writes:

    - a few evenly spaced frames of each video as `VIDEO_FRAME.png` (frame, prediction,
      ground truth), and all of them in `sheet.png`;
    - the best, median and worst frame by mean IoU of its classes as `best.png`,
      `median.png` and `worst.png`, with their names in `picked.json`;
    - confidence, similarity and admission of every frame, labeled or not, in
      `timeline.csv`.
    """

    def __init__(self, folder: Path, source: FrameSource):
        self._folder, self._source = folder, source
        self._names = [info.name for info in source.classes]
        self._pictures: list[Any] = []
        self._scored: list[tuple[float, int, int, bytes]] = []
        self._timeline: list[list[Any]] = []
        make_folder(folder)

    def __call__(self, video: int, result: Prediction) -> None:
        info = self._source.videos[video]
        gates = f"{result.confidence:.6g}", f"{result.similarity:.6g}"
        frame = [info.name, info.frames[result.frame]]
        self._timeline.append([*frame, *gates, int(result.admitted)])
        if result.truth is not None:
            self._keep(video, result)
        selected = np.linspace(0, len(info.frames) - 1, OVERLAYS_A_VIDEO + 1)[1:]
        if result.frame in selected.astype(int):
            picture = self._picture(video, result.frame, result.label, result.truth)
            name = file_name(info.name, info.frames[result.frame], suffix=".png")
            self._save(picture, name)
            self._pictures.append(picture)

    def finish(self) -> None:
        """Writes the contact sheet, the picked frames and the timeline."""
        if self._pictures:
            sheet = contact_sheet([[picture] for picture in self._pictures])
            self._save(sheet, "sheet.png")
        if self._timeline:
            header = ["video", "frame", "confidence", "similarity", "admitted"]
            with (
                atomic_write(self._folder / "timeline.csv") as fresh,
                fresh.open("w", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file).writerows([header, *self._timeline])
        if self._scored:
            self._write_picked()

    def _keep(self, video: int, result: Prediction) -> None:
        """Keeps the frame's score and its compressed prediction."""
        assert result.truth is not None
        matrix = confusion_matrix(result.label, result.truth, len(self._names))
        counts = counts_of(matrix)[1:]
        union = counts[:, 1] + counts[:, 2] - counts[:, 0]
        if counts[:, 2].any():  # without a labeled class there is no score
            score = float((counts[:, 0] / np.maximum(union, 1))[union > 0].mean())
            file = io.BytesIO()
            Image.fromarray(result.label).save(file, "PNG")
            self._scored.append((score, video, result.frame, file.getvalue()))

    def _write_picked(self) -> None:
        picked = {}
        order = sorted(self._scored, key=lambda scored: scored[:3])
        places = {"best": -1, "median": len(order) // 2, "worst": 0}
        for name, place in places.items():
            score, video, frame, png = order[place]
            truth = self._source.label(video, frame)
            label = np.asarray(Image.open(io.BytesIO(png)))
            if truth is not None:
                truth = resize_label(truth, label.shape)
            self._save(self._picture(video, frame, label, truth), f"{name}.png")
            info = self._source.videos[video]
            picked[name] = {
                "video": info.name,
                "frame": info.frames[frame],
                "iou": score,
            }
        write_json(self._folder / "picked.json", picked)

    def _save(self, picture: Image.Image, name: str) -> None:
        with atomic_write(self._folder / name) as fresh:
            picture.save(fresh, format="PNG")

    def _picture(
        self, video: int, frame: int, label: np.ndarray, truth: np.ndarray | None
    ) -> Image.Image:
        """Draws frame, prediction and ground truth at the scored size."""
        image = resize_image(self._source.image(video, frame), label.shape)
        colors = [info.color for info in self._source.classes]
        return side_by_side(image, label, truth, colors=colors, names=self._names)
