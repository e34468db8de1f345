"""Scores of video segmentation under all published protocols, from one count table.

    counts = np.stack([frame_counts(p, g, num_classes) for p, g in frames])
    summarize(counts, protocol="challenge")["iou"]

Depends on NumPy only. All scores are in 0..1, or NaN if undefined.
"""

from dmnet_jax.metrics.borders import (
    flicker,
    flicker_counts,
    normalized_surface_distance,
)
from dmnet_jax.metrics.counts import confusion_matrix, counts_of, frame_counts
from dmnet_jax.metrics.protocols import (
    PROTOCOLS,
    deviation,
    mean_known,
    summarize,
    ternaus_validation,
)
from dmnet_jax.metrics.videos import (
    Score,
    bootstrap,
    bootstrap_interval,
    format_table,
    per_class,
    per_video,
)

__all__ = [
    "PROTOCOLS",
    "Score",
    "bootstrap",
    "bootstrap_interval",
    "confusion_matrix",
    "counts_of",
    "deviation",
    "flicker",
    "flicker_counts",
    "format_table",
    "frame_counts",
    "mean_known",
    "normalized_surface_distance",
    "per_class",
    "per_video",
    "summarize",
    "ternaus_validation",
]
