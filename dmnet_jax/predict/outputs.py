"""What `predict` writes of each frame: an overlay, labels, a line."""

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
from dmnet_jax.predict.formats import Format, label_writer, replacing
from dmnet_jax.streaming import Result
from dmnet_jax.video import overlay
from dmnet_jax.video.overlay import PALETTE, Color, legend, numbered
from dmnet_jax.video.pyav import VideoWriter
from dmnet_jax.video.sources import Captured, SourceError

_INK, _PAPER, _ALARM = (20, 20, 20), (255, 255, 255), (213, 94, 0)


def colors_of(classes: Sequence[dict[str, Any]]) -> tuple[Color, ...]:
    """The classes' colors: those that color-blind people can tell apart, if enough.

    Else the checkpoint's own, if they differ.

    Args:
        classes: of the checkpoint, background first.
    """
    if len(classes) <= len(PALETTE):
        return PALETTE[: len(classes)]
    colors = tuple(tuple(info["color"]) for info in classes)
    if len(set(colors)) < len(colors):
        return tuple(map(class_color, range(len(classes))))
    return colors


def areas(label: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Pixels, and share of the frame, of each foreground class that is there."""
    counts = np.bincount(label.ravel(), minlength=len(names))
    return {
        name: {"pixels": int(count), "share": round(float(count / label.size), 6)}
        for name, count in zip(names[1:], counts[1:], strict=False)
        if count
    }


def painted(
    image: np.ndarray,
    result: Result,
    names: Sequence[str],
    colors: Sequence[Color],
) -> np.ndarray:
    """Overlay above a line about the frame and the legend, uint8 [H + x, W, 3].

    A frame without labels is shown as it is, and why; never with older labels.
    """
    height, width = image.shape[:2]
    size = max(11, min(height, width) // 32)
    if result.labels is not None:
        image = overlay.overlay(image, result.labels, colors)
        image = numbered(image, result.labels)
    line = Image.new("RGB", (width, 2 * size), _PAPER)
    draw, font = ImageDraw.Draw(line), ImageFont.load_default(size)
    if result.labels is None:
        line.paste(_ALARM, (0, 0, width, 2 * size))
        text, ink = f"NO RESULT · {result.status}: {result.reason}", _PAPER
    else:
        parts = [f"{1e3 * result.seconds:.0f} ms"]
        parts += [f"r {result.confidence:.3f}"]
        if math.isfinite(result.similarity):
            parts += [f"s {result.similarity:.1f}"]
        parts += ["remembered"] if result.admitted else []
        parts += [result.reason] if result.reason else []
        text, ink = f"frame {result.index} · {' · '.join(parts)}", _INK
    draw.text((size // 2, size), text, ink, font=font, anchor="lm")
    foot = np.asarray(legend(names, colors, width=width, size=size))
    return np.concatenate([image, np.asarray(line), foot])


class Outputs:
    """The files of one prediction; each frame's are complete before the next.

    Args:
        folder: made if missing.
        classes: of the checkpoint, background first.
        rate: frames a second of the overlay video.
        form: of the labels, see `formats`.
        overlay: whether to draw the overlay video.
        file_names: of the frames' pictures, by the frames' names, if they are files.

    Raises:
        DataError: this form cannot be written, see `formats.label_writer`.
        WriteError: also by the methods: names the folder or file, and says why.
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
        self._colors = colors_of(classes)
        with as_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            known = map(ClassInfo, self._names, self._colors)
            self._labels = label_writer(form, folder, tuple(known), file_names or {})
            self._lines = (folder / "frames.jsonl").open("w", encoding="utf-8")
            self._video, self._pictures = None, False
            try:
                if overlay:
                    self._video = VideoWriter(folder / "overlay.mp4", rate)
            except SourceError:  # no PyAV
                self._pictures = True
                (folder / "overlay").mkdir()
        self._size: tuple[int, int] | None = None
        self.written = 0

    def add(self, captured: Captured, result: Result, seconds: float, **more: Any):
        """Writes what came of a frame.

        Args:
            captured: the frame.
            result: what the session made of it.
            seconds: when the overlay video shows it.
            more: for the frame's line.
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
        if self._video is not None or self._pictures:
            self._show(captured, result, seconds)
        found = {}
        if result.labels is not None:
            found = areas(result.labels, self._names)
            self._labels.add(captured.name, result.labels)
        line = {
            "frame": captured.name,
            "index": result.index,
            "seconds": round(captured.seconds, 6),
            "status": result.status,
            "reason": result.reason,
            "latency_ms": round(1e3 * result.seconds, 3),
            "classes": found,
            "confidence": _finite(result.confidence),
            "similarity": _finite(result.similarity),
            "admitted": result.admitted,
            "suspect": result.status == "suspect",
            "forgot": result.forgot,
            **more,
        }
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()

    def _show(self, captured: Captured, result: Result, seconds: float) -> None:
        picture = painted(captured.image, result, self._names, self._colors)
        if self._video is None:
            with replacing(self._folder / "overlay" / f"{captured.name}.png") as path:
                Image.fromarray(picture).save(path)
            return
        self._size = self._size or picture.shape[:2]
        if picture.shape[:2] != self._size:
            height, width = self._size
            picture = np.asarray(Image.fromarray(picture).resize((width, height)))
        self._video.add(picture, seconds)

    def close(self, summary: dict[str, Any]) -> None:
        """Completes the files and writes `summary.json`."""
        with as_write_error(self._folder), contextlib.ExitStack() as last:
            # Whatever fails, the others are completed.
            last.callback(write_json, self._folder / "summary.json", summary)
            if self._video is not None:
                last.callback(self._video.close)
            last.callback(self._lines.close)
            last.callback(self._labels.close)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
