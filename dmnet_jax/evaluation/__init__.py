"""Whole videos, causally: what a network is worth, and its thresholds."""

from dmnet_jax.evaluation.videos import (
    CHUNK,
    NO_SIMILARITY,
    Evaluation,
    Prediction,
    Scoring,
    calibrate,
    check_scoring,
    evaluate,
    predict_video,
)

__all__ = [
    "CHUNK",
    "Evaluation",
    "NO_SIMILARITY",
    "Prediction",
    "Scoring",
    "calibrate",
    "check_scoring",
    "evaluate",
    "predict_video",
]
