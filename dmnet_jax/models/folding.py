"""Folding of trained variables for faster inference.

The folding is mathematically exact and computed once in float64: batch norm is folded
into the preceding convolution, and the decoder's last pooling convolution into the
classifier that follows it.
"""

from typing import Any

import jax
import numpy as np


def fold(variables: Any, epsilon: float) -> dict[str, Any]:
    """Returns the variables of a `DMNet` with `is_folded=True`.

    Args:
        variables: trained "params", "batch_stats" and "thresholds".
        epsilon: epsilon of the encoder's batch norm.

    Returns:
        "params" and "thresholds", float32 NumPy arrays.
    """
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    params = dict(double["params"])
    params["backbone"] = _with_norms(
        params["backbone"], double["batch_stats"]["backbone"], epsilon
    )
    params["decoder"] = _with_pooled_classifier(params["decoder"])
    folded = {"params": params, "thresholds": double["thresholds"]}
    return jax.tree.map(lambda x: np.asarray(x, np.float32), folded)


def _with_norms(params: Any, statistics: Any, epsilon: float) -> dict[str, Any]:
    """Folds each norm `<layer>_norm` into its layer's kernel and bias."""
    folded = {}
    for name, layer in params.items():
        norm = params.get(f"{name}_norm")
        if norm is not None:
            seen = statistics[f"{name}_norm"]
            scale = norm["scale"] / np.sqrt(seen["var"] + epsilon)
            folded[name] = {
                "kernel": layer["kernel"] * scale,
                "bias": norm["bias"] - seen["mean"] * scale,
            }
        elif not name.endswith("_norm"):
            folded[name] = _with_norms(layer, statistics[name], epsilon)
    return folded


def _with_pooled_classifier(decoder: Any) -> dict[str, Any]:
    """Splits classifier(x + W p) into classifier(x) + pooled_classifier(p)."""
    pooling = dict(decoder["crp1"])
    last = pooling.pop(f"conv{len(pooling) - 1}")
    kernel = last["kernel"][0, 0] @ decoder["classifier"]["kernel"]
    return {**decoder, "crp1": pooling, "pooled_classifier": {"kernel": kernel}}
