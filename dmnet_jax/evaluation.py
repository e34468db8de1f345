"""Whole videos, causally: the network rolled over every frame with its memory on.

Works for any model with the `init_memory` and `__call__` of `models`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data_pipelines.frames import FrameSource
from dmnet_jax.metrics import frame_counts, summarize
from dmnet_jax.models.dmnet import DMNet
from dmnet_jax.training import enlarge

CHUNK = 10


class Prediction(NamedTuple):
    """What the network said of one frame.

    Attributes:
        frame: its index in the video.
        label: uint8 [h, w], the likeliest class at the label's stored size (the
            image's where there is no label).
        truth: uint8 [h, w] or None.
        confidence: the paper's r.
        similarity: the paper's s; -inf before anything was admitted.
        admitted: whether the frame entered the global memory.
    """

    frame: int
    label: np.ndarray
    truth: np.ndarray | None
    confidence: float
    similarity: float
    admitted: bool


class Evaluation(NamedTuple):
    """Every labelled frame of the videos, as counts.

    Attributes:
        counts: int64 [frames, num_classes, 3] of |P and G|, |P|, |G| pixels.
        videos: for each frame, the name of its video.
        frames: for each frame, its name.
        confidence: float [frames].
        similarity: float [frames].
        admitted: bool [frames].
    """

    counts: np.ndarray
    videos: np.ndarray
    frames: np.ndarray
    confidence: np.ndarray
    similarity: np.ndarray
    admitted: np.ndarray

    @property
    def score(self) -> float:
        """Pooled IoU, the mean over foreground classes; decides the best checkpoint."""
        return float(summarize(self.counts, protocol="global")["iou"])


@partial(jax.jit, static_argnames=("model", "size"), donate_argnames=("memory",))
def _roll(
    variables: Any, memory: Any, frames: Array, *, model: DMNet, size: tuple[int, int]
) -> tuple[Any, tuple[Array, Array, Array, Array]]:
    rolled: Any = model.apply(variables, memory, frames)
    memory, output = rolled
    labels = jax.lax.map(
        lambda logits: jnp.argmax(enlarge(logits[None], size)[0], -1), output.logits[0]
    )
    gates = output.confidence[0], output.similarity[0], output.admitted[0]
    return memory, (labels.astype(jnp.uint8), *gates)


def predict_video(
    model: DMNet, variables: Any, source: FrameSource, video: int, *, seed: int = 0
) -> Iterator[Prediction]:
    """Rolls the network over a video, oldest frame first, in chunks of one program.

    Args:
        model: to apply.
        variables: its variables.
        source: images at the network's size.
        video: index in the source.
        seed: of the memory's random reads.
    """
    length = len(source.videos[video].frames)
    memory = None
    for start in range(0, length, CHUNK):
        indices = range(start, min(start + CHUNK, length))
        images = [source.image(video, i) for i in indices]
        # The last chunk repeats its last frame; what comes of that is dropped.
        images += images[-1:] * (CHUNK - len(images))
        truths = [source.label(video, i) for i in indices]
        if memory is None:
            key = jax.random.fold_in(jax.random.key(seed), video)
            memory = model.init_memory(1, images[0].shape[:2], key)
        size = next((t.shape for t in truths if t is not None), images[0].shape[:2])
        memory, results = _roll(
            variables, memory, np.stack(images)[None], model=model, size=size
        )
        labels, confidence, similarity, admitted = map(np.asarray, results)
        for i, index in enumerate(indices):
            yield Prediction(
                index,
                labels[i],
                truths[i],
                float(confidence[i]),
                float(similarity[i]),
                bool(admitted[i]),
            )


def evaluate(
    model: DMNet,
    variables: Any,
    source: FrameSource,
    *,
    seed: int = 0,
    on_frame: Callable[[int, Prediction], None] | None = None,
) -> Evaluation:
    """Counts every labelled frame of all videos, each from an empty memory.

    Args:
        model: to apply.
        variables: its variables.
        source: images at the network's size, labels at the size they are scored at.
        seed: of the memories' random reads.
        on_frame: called with (video index, prediction), for pictures.
    """
    rows = []
    for video, info in enumerate(source.videos):
        for result in predict_video(model, variables, source, video, seed=seed):
            if on_frame is not None:
                on_frame(video, result)
            if result.truth is not None:
                counts = frame_counts(result.label, result.truth, model.num_classes)
                rows.append((counts, info.name, info.frames[result.frame], *result[3:]))
    return Evaluation(*map(np.array, zip(*rows, strict=True)))


def calibrate(
    model: DMNet, variables: Any, source: FrameSource, *, seed: int = 0
) -> dict[str, np.float32]:
    """The paper's alpha and beta for these weights: means of r and s over videos.

    Section 3 sets both "by averaging r, s of all frames". s is taken to the frame
    before (every frame is admitted while measuring), since a reference that itself
    depends on the threshold would have no mean to converge to.
    """
    everything = {
        "min_confidence": np.float32(-np.inf),
        "max_similarity": np.float32(np.inf),
    }
    measured = {**variables, "thresholds": everything}
    gates = [
        (result.confidence, result.similarity)
        for video in range(len(source.videos))
        for result in predict_video(model, measured, source, video, seed=seed)
    ]
    confidence, similarity = np.array(gates).T
    return {
        "min_confidence": np.float32(confidence.mean()),
        "max_similarity": np.float32(similarity[np.isfinite(similarity)].mean()),
    }
