"""Causal evaluation on whole videos, and calibration of a network's thresholds."""

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
