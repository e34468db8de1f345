"""Causal evaluation on whole videos, and calibration of a network's thresholds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    # Imported lazily, so that command lines, which need other modules of this package,
    # can answer --help without importing JAX.
    if name in __all__:
        return getattr(import_module("dmnet_jax.evaluation.videos"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
