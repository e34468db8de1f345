"""Output files of a prediction: overlay video, labels, and a record per frame."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.frames import ClassInfo
from data_pipelines.io.files import as_write_error
from data_pipelines.sources.folder.classes import class_color
from dmnet_jax.evaluation.results import write_json
from dmnet_jax.predict.formats import Format, atomic_write, label_writer
from dmnet_jax.streaming import Result
from dmnet_jax.video import overlay
from dmnet_jax.video.overlay import PALETTE, Color, legend, numbered
from dmnet_jax.video.pyav import VideoWriter
from dmnet_jax.video.sources import Captured, SourceError

_TEXT, _BACKGROUND, _WARNING = (20, 20, 20), (255, 255, 255), (213, 94, 0)


def class_colors(classes: Sequence[dict[str, Any]]) -> tuple[Color, ...]:
    """Returns the colors for classes.

    They are from a palette for color-blind viewers. If it has too few colors, they are
    the checkpoint's colors if those are distinct, or else generated ones.

    Args:
        classes: classes of the checkpoint, background first.
    """
    if len(classes) <= len(PALETTE):
        return PALETTE[: len(classes)]
    colors = tuple(tuple(info["color"]) for info in classes)
    if len(set(colors)) < len(colors):
        return tuple(map(class_color, range(len(classes))))
    return colors


def class_areas(label: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns "pixels" and "share" of the frame for each foreground class present."""
    counts = np.bincount(label.ravel(), minlength=len(names))
    return {
        name: {"pixels": int(count), "share": round(float(count / label.size), 6)}
        for name, count in zip(names[1:], counts[1:], strict=False)
        if count
    }


def draw_frame(
    image: np.ndarray,
    result: Result,
    names: Sequence[str],
    colors: Sequence[Color],
) -> np.ndarray:
    """Draws the overlay with a status line and a legend below, uint8 [H + x, W, 3].

    A frame without labels is drawn without an overlay, with the reason. Labels of an
    older frame are never shown.
    """
    height, width = image.shape[:2]
    size = max(11, min(height, width) // 32)
    if result.labels is not None:
        image = overlay.overlay(image, result.labels, colors)
        image = numbered(image, result.labels)
    line = Image.new("RGB", (width, 2 * size), _BACKGROUND)
    draw, font = ImageDraw.Draw(line), ImageFont.load_default(size)
    if result.labels is None:
        line.paste(_WARNING, (0, 0, width, 2 * size))
        text, color = f"NO RESULT · {result.status}: {result.reason}", _BACKGROUND
    else:
        parts = [f"{1e3 * result.seconds:.0f} ms"]
        parts += [f"r {result.confidence:.3f}"]
        if math.isfinite(result.similarity):
            parts += [f"s {result.similarity:.1f}"]
        parts += ["admitted"] if result.admitted else []
        parts += [result.reason] if result.reason else []
        text, color = f"frame {result.index} · {' · '.join(parts)}", _TEXT
    draw.text((size // 2, size), text, color, font=font, anchor="lm")
    class_legend = np.asarray(legend(names, colors, width=width, size=size))
    return np.concatenate([image, np.asarray(line), class_legend])


class Outputs:
    """Writes the files of one prediction, frame by frame.

    Args:
        folder: folder to write to; created if missing.
        classes: classes of the checkpoint, background first.
        rate: frames per second of the overlay video.
        form: format of the labels, see `formats`.
        overlay: whether to write the overlay video.
        file_names: names of the frames' image files by name of the frame, if any.

    Raises:
        DataError: see `formats.label_writer`.
        WriteError: writing failed, here or in a method; names the folder or file.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[dict[str, Any]],
        rate: float,
        form: Format = "png",
        overlay: bool = True,
        file_names: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._names = [info["name"] for info in classes]
        self._colors = class_colors(classes)
        with as_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            infos = tuple(map(ClassInfo, self._names, self._colors))
            self._labels = label_writer(form, folder, infos, file_names or {})
            self._records = (folder / "frames.jsonl").open("w", encoding="utf-8")
            self._video, self._images = None, False
            try:
                if overlay:
                    self._video = VideoWriter(folder / "overlay.mp4", rate)
            except SourceError:  # PyAV is not installed
                self._images = True
                (folder / "overlay").mkdir()
        self._size: tuple[int, int] | None = None
        self.written = 0

    def add(self, captured: Captured, result: Result, seconds: float, **more: Any):
        """Writes the result of a frame.

        Args:
            captured: the frame.
            result: the session's result for it.
            seconds: time of the frame in the overlay video.
            **more: further fields of the frame's record.
        """
        with as_write_error(self._folder):
            self._add(captured, result, seconds, more)
        self.written += 1

    def _add(
        self,
        captured: Captured,
        result: Result,
        seconds: float,
        more: dict[str, Any],
    ) -> None:
        if self._video is not None or self._images:
            self._add_overlay(captured, result, seconds)
        areas = {}
        if result.labels is not None:
            areas = class_areas(result.labels, self._names)
            self._labels.add(captured.name, result.labels)
        record = {
            "frame": captured.name,
            "index": result.index,
            "seconds": round(captured.seconds, 6),
            "status": result.status,
            "reason": result.reason,
            "latency_ms": round(1e3 * result.seconds, 3),
            "classes": areas,
            "confidence": _finite(result.confidence),
            "similarity": _finite(result.similarity),
            "admitted": result.admitted,
            "suspect": result.status == "suspect",
            "forgot": result.forgot,
            **more,
        }
        self._records.write(json.dumps(record, allow_nan=False) + "\n")
        self._records.flush()

    def _add_overlay(self, captured: Captured, result: Result, seconds: float) -> None:
        image = draw_frame(captured.image, result, self._names, self._colors)
        if self._video is None:
            file = self._folder / "overlay" / f"{captured.name}.png"
            with atomic_write(file) as path:
                Image.fromarray(image).save(path)
            return
        self._size = self._size or image.shape[:2]
        if image.shape[:2] != self._size:
            height, width = self._size
            image = np.asarray(Image.fromarray(image).resize((width, height)))
        self._video.add(image, seconds)

    def close(self, summary: dict[str, Any]) -> None:
        """Completes the files and writes `summary.json`."""
        with as_write_error(self._folder), contextlib.ExitStack() as stack:
            # The stack runs all callbacks, in reverse order, even if one fails.
            stack.callback(write_json, self._folder / "summary.json", summary)
            if self._video is not None:
                stack.callback(self._video.close)
            stack.callback(self._records.close)
            stack.callback(self._labels.close)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
