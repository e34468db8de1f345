"""Causal evaluation on whole videos, frame by frame, with the memory enabled.

Works for any `models.protocol.VideoSegmenter`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data_pipelines.frames import FrameSource, resize_label
from dmnet_jax.checkpoint.provenance import weights_sha256
from dmnet_jax.metrics import (
    confusion_matrix,
    counts_of,
    flicker_counts,
    normalized_surface_distance,
    summarize,
)
from dmnet_jax.models.dmnet import PAPER_MIN_CONFIDENCE
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.nn.resizing import resize

CHUNK = 10
# Above the similarity of any two distinct frames.
NO_SIMILARITY = 0.0


class Scoring(NamedTuple):
    """How predictions are compared with labels.

    Attributes:
        score_at: "label" scores at the stored size of the labels (EndoVis: the whole
            cropped frame), "input" at the network's input size, to which labels are
            resized.
        enlarge: resize method of the logits. The authors' code uses "nearest" (by a
            factor of 4) at the input size.
        tolerance_px: tolerance of the normalized surface distance, in pixels at the
            scored size.
        seed: seed of the memories' random reads.
    """

    score_at: Literal["label", "input"] = "label"
    enlarge: Literal["bilinear", "nearest"] = "bilinear"
    tolerance_px: float = 5.0
    seed: int = 0


class Prediction(NamedTuple):
    """The network's result for one frame.

    Attributes:
        frame: index of the frame in the video.
        label: uint8 [h, w], argmax over classes at the scored size (the size of the
            image if no frame of its chunk has a label).
        truth: uint8 [h, w], the label, or None.
        confidence: the paper's r.
        similarity: the paper's s; -inf before the first admitted frame and without a
            global memory.
        admitted: whether the frame entered the global memory.
    """

    frame: int
    label: np.ndarray
    truth: np.ndarray | None
    confidence: float
    similarity: float
    admitted: bool


class Evaluation(NamedTuple):
    """Counts for every labeled frame of the videos.

    Attributes:
        counts: int64 [frames, num_classes, 3], numbers of pixels |P and G|, |P|, |G|.
        videos: str [frames], the name of each frame's video.
        frames: str [frames], the name of each frame.
        confidence: float [frames].
        similarity: float [frames].
        admitted: bool [frames].
        surface: float [frames, num_classes], normalized surface distances; NaN where
            neither mask has a border, and for background.
        flicker: int64 [frames, 2], `flicker_counts` against the frame before; 0 if that
            frame has no label.
        confusion: int64 [num_classes, num_classes], summed over frames, rows are
            labels.
        size: (height, width) at which the last frame was scored.
        scoring: the scoring rules.
        weights_sha256: checksum of the variables.
        thresholds: the paper's alpha and beta; empty for a network without thresholds.
    """

    counts: np.ndarray
    videos: np.ndarray
    frames: np.ndarray
    confidence: np.ndarray
    similarity: np.ndarray
    admitted: np.ndarray
    surface: np.ndarray
    flicker: np.ndarray
    confusion: np.ndarray
    size: tuple[int, int]
    scoring: Scoring
    weights_sha256: str
    thresholds: Mapping[str, float] = MappingProxyType({})

    @property
    def score(self) -> float:
        """Pooled IoU, averaged over foreground classes; selects the best checkpoint."""
        return float(summarize(self.counts, protocol="global")["iou"])


@partial(
    jax.jit, static_argnames=("model", "size", "method"), donate_argnames=("memory",)
)
def _roll(
    variables: Any,
    memory: Any,
    frames: Array,
    *,
    model: Any,
    size: tuple[int, int],
    method: str,
) -> tuple[Any, tuple[Array, Array, Array, Array]]:
    memory, output = model.apply(variables, memory, frames)

    def argmax(logits: Array) -> Array:
        return jnp.argmax(resize(logits[None], size, method)[0], -1).astype(jnp.uint8)

    labels = jax.lax.map(argmax, output.logits[0])
    gates = output.confidence[0], output.similarity[0], output.admitted[0]
    return memory, (labels, *gates)


def predict_video(
    model: VideoSegmenter,
    variables: Any,
    source: FrameSource,
    video: int,
    *,
    scoring: Scoring = Scoring(),  # noqa: B008 (immutable)
) -> Iterator[Prediction]:
    """Runs the network over a video in order, in chunks of fixed length.

    Args:
        model: the network.
        variables: variables of the network.
        source: source of images at the network's size.
        video: index of the video in the source.
        scoring: size and resize method of predictions, and the seed.

    Yields:
        A prediction for each frame.
    """
    length = len(source.videos[video].frames)
    memory = None
    # Without a global memory nothing is admitted, whatever the network returns.
    admits = model.memories.global_
    for start in range(0, length, CHUNK):
        indices = range(start, min(start + CHUNK, length))
        images = [source.image(video, i) for i in indices]
        # The last chunk is padded with its last frame; those results are dropped.
        images += images[-1:] * (CHUNK - len(images))
        size = images[0].shape[:2]
        truths = [source.label(video, i) for i in indices]
        if memory is None:
            key = jax.random.fold_in(jax.random.key(scoring.seed), video)
            memory = model.init_memory(1, size, key)
        if scoring.score_at == "input":
            truths = [t if t is None else resize_label(t, size) for t in truths]
        size = next((t.shape for t in truths if t is not None), size)
        memory, results = _roll(
            variables,
            memory,
            np.stack(images)[None],
            model=model,
            size=size,
            method=scoring.enlarge,
        )
        labels, confidence, similarity, admitted = map(np.asarray, results)
        for i, index in enumerate(indices):
            yield Prediction(
                index,
                labels[i],
                truths[i],
                float(confidence[i]),
                float(similarity[i]) if admits else -np.inf,
                bool(admitted[i]) and admits,
            )


def evaluate(
    model: VideoSegmenter,
    variables: Any,
    source: FrameSource,
    *,
    scoring: Scoring = Scoring(),  # noqa: B008 (immutable)
    on_frame: Callable[[int, Prediction], None] | None = None,
) -> Evaluation:
    """Scores every labeled frame of all videos, starting each from an empty memory.

    At most two label maps are held at a time, so videos may have any length and size.

    Args:
        model: the network.
        variables: variables of the network.
        source: source of images at the network's size, with labels as stored.
        scoring: the scoring rules.
        on_frame: called with (video index, prediction) for every frame.

    Raises:
        ValueError: no frame of the videos has a label, or `scoring` is invalid.
    """
    check_scoring(scoring)
    classes, rows, size = model.num_classes, [], (0, 0)
    confusion = np.zeros((classes, classes), np.int64)
    for video, info in enumerate(source.videos):
        before = None
        for now in predict_video(model, variables, source, video, scoring=scoring):
            if on_frame is not None:
                on_frame(video, now)
            if now.truth is not None:
                matrix = confusion_matrix(now.label, now.truth, classes)
                confusion += matrix
                size = now.truth.shape
                rows.append(
                    (
                        *(counts_of(matrix), info.name, info.frames[now.frame]),
                        *(now.confidence, now.similarity, now.admitted),
                        _surface(now.label, now.truth, matrix, scoring.tolerance_px),
                        _flicker(before, now),
                    )
                )
            before = now
    if not rows:
        names = ", ".join(info.name for info in source.videos)
        raise ValueError(f"no frame of {names} has a label; there is nothing to score")
    return Evaluation(
        *map(np.array, zip(*rows, strict=True)),
        confusion=confusion,
        size=size,
        scoring=scoring,
        weights_sha256=weights_sha256(variables),
        thresholds={n: float(x) for n, x in variables.get("thresholds", {}).items()},
    )


def check_scoring(scoring: Scoring) -> None:
    """Raises a ValueError that names the invalid field, if there is one."""
    if not 0 <= scoring.tolerance_px < np.inf:
        raise ValueError(
            f"tolerance_px is {scoring.tolerance_px}; it must be a finite number, "
            "at least 0"
        )
    if not 0 <= scoring.seed < 2**32:
        raise ValueError(f"seed is {scoring.seed}; it must be 0 to 2**32 - 1")


def _surface(
    label: np.ndarray, truth: np.ndarray, matrix: np.ndarray, tolerance: float
) -> np.ndarray:
    """Normalized surface distance of each class in label or prediction; else NaN."""
    distances = np.full(len(matrix), np.nan)
    for class_id in range(1, len(matrix)):
        if matrix[class_id].any() or matrix[:, class_id].any():
            distances[class_id] = normalized_surface_distance(
                label, truth, class_id, tolerance
            )
    return distances


def _flicker(before: Prediction | None, current: Prediction) -> np.ndarray:
    if before is None or before.truth is None or current.truth is None:
        return np.zeros(2, np.int64)
    return flicker_counts(before.label, current.label, before.truth, current.truth)


def calibrate(
    model: VideoSegmenter,
    variables: Any,
    source: FrameSource,
    *,
    seed: int = 0,
    on_frame: Callable[[int, Prediction], None] | None = None,
) -> dict[str, np.float32]:
    """Calibrates the paper's alpha and beta: means of r and s over videos.

    Section 3 sets both "by averaging r, s of all frames". Here s is the similarity to
    the frame before, because every frame is admitted during calibration. If the
    reference itself depended on the threshold, the mean would not converge.

    Args:
        model: the network.
        variables: variables of the network.
        source: source of images at the network's size.
        seed: seed of the memories' random reads.
        on_frame: called with (video index, prediction) for every frame.

    Returns:
        Finite "min_confidence" and "max_similarity". If no video has two frames, there
        is no s, and "max_similarity" is 0, so that confidence alone decides.
    """
    everything = {
        "min_confidence": np.float32(-np.inf),
        "max_similarity": np.float32(np.inf),
    }
    measured = {**variables, "thresholds": everything}
    gates = []
    scoring = Scoring(seed=seed)
    for video in range(len(source.videos)):
        for result in predict_video(model, measured, source, video, scoring=scoring):
            if on_frame is not None:
                on_frame(video, result)
            gates.append((result.confidence, result.similarity))
    confidence, similarity = np.array(gates).T
    return {
        "min_confidence": _threshold(confidence, PAPER_MIN_CONFIDENCE),
        "max_similarity": _threshold(similarity, NO_SIMILARITY),
    }


def _threshold(values: np.ndarray, otherwise: float) -> np.float32:
    """Mean of the finite values as a finite float32; `otherwise` if there are none."""
    known = values[np.isfinite(values)].astype(np.float64)
    limit = float(np.finfo(np.float32).max)
    mean = known.mean() if known.size else otherwise
    return np.float32(np.clip(mean, -limit, limit))
