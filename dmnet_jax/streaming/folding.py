"""Trained variables -> the weights of the streaming network: fewer, larger products.

Exact rewritings, done once in float64: batch norm goes into the convolution before it,
and two linear layers with nothing between them become one. What can be computed for
each frame once is split off from what depends on the window it is seen in.
"""

from typing import Any

import numpy as np

from dmnet_jax.models.dmnet import DMNet

Weights = dict[str, Any]
"""Nested layers; a layer is {"kernel": [k, k, C, D]} with or without "bias" [D]."""


def fold(model: DMNet, variables: Any) -> Weights:
    """Weights for `network.step` of the same model.

    Args:
        model: the network that was trained.
        variables: its "params", "batch_stats" and "thresholds".

    Returns:
        Float32 NumPy arrays: `encoder`, `decoder`, and as the model has them
        `recurrent`, `local_key_value`, `global_key_value`, and the two `thresholds`.
    """
    double = _map(lambda x: np.asarray(x, np.float64), variables)
    params = double["params"]
    epsilon = 1e-3 if model.encoder == "keras" else 1e-5
    encoder = _encoder(params["backbone"], double["batch_stats"]["backbone"], epsilon)
    # The last block's projection is linear and only the lateral reads it.
    encoder["lateral8"] = _then(encoder.pop("last_project"), params["lateral8"])
    encoder["lateral7"] = params["lateral7"]
    weights = {
        "encoder": encoder,
        "decoder": _decoder(params["decoder"]),
        "thresholds": double["thresholds"],
    }
    if model.local in ("ela", "blstm"):
        weights["recurrent"] = _bottleneck_lstm(params["recurrent"])
    elif model.local == "clstm":
        weights["recurrent"] = _conv_lstm(params["recurrent"])
    for name in ("local_key_value", "global_key_value"):
        if name in params:
            weights[name] = _beside(params[name]["key"], params[name]["value"])
    return _map(lambda x: np.asarray(x, np.float32), weights)


def _map(function: Any, tree: Any) -> Any:
    if hasattr(tree, "items"):
        return {name: _map(function, branch) for name, branch in tree.items()}
    return function(tree)


def _encoder(params: Weights, statistics: Weights, epsilon: float) -> Weights:
    """Every block's three convolutions with their norms; the last projection apart."""

    def normed(layer: Weights, norm: Weights, seen: Weights) -> Weights:
        scale = norm["scale"] / np.sqrt(seen["var"] + epsilon)
        bias = norm["bias"] - seen["mean"] * scale
        return {"kernel": layer["kernel"] * scale, "bias": bias}

    folded: Weights = {
        "stem": normed(params["stem"], params["stem_norm"], statistics["stem_norm"])
    }
    blocks = [name for name in params if name.startswith("block")]
    for name in blocks:
        block, seen = params[name], statistics[name]
        folded[name] = {
            part: normed(block[part], block[f"{part}_norm"], seen[f"{part}_norm"])
            for part in ("expand", "depthwise", "project")
        }
    folded["last_project"] = folded[f"block{len(blocks) - 1}"].pop("project")
    return folded


def _decoder(params: Weights) -> Weights:
    """The last pooling stage's 1x1 goes into the classifier that follows it.

    The classifier of x + W p is that of x and, with W before it, that of p.
    """
    decoder = dict(params)
    pooling = dict(decoder["crp1"])
    last = pooling.pop(f"conv{len(pooling) - 1}")
    decoder["crp1"] = pooling
    decoder["pooled_classifier"] = {
        "kernel": last["kernel"][0, 0] @ decoder["classifier"]["kernel"]
    }
    return decoder


def _bottleneck_lstm(params: Weights) -> Weights:
    """The bottleneck's halves for input and hidden state, and the gates as one layer.

    The order of the gates is f, i, c, o: the first step, whose cell is zero, needs no
    f and takes the rest.
    """
    kernel = params["bottleneck"]["kernel"]
    inputs = params["input_filter"]["kernel"].shape[-1]
    return {
        "input_filter": params["input_filter"],
        "input": {**params["bottleneck"], "kernel": kernel[:, :, :inputs]},
        "hidden": {"kernel": kernel[:, :, inputs:]},
        "gate_filter": params["gate_filter"],
        "gates": {
            "kernel": np.concatenate(
                [params[f"gate_{gate}"]["kernel"] for gate in "fico"], -1
            )
        },
    }


def _conv_lstm(params: Weights) -> Weights:
    """The gates' halves for input and hidden state."""
    kernel = params["gates"]["kernel"]
    inputs = kernel.shape[2] - kernel.shape[3] // 4
    return {
        "input": {**params["gates"], "kernel": kernel[:, :, :inputs]},
        "hidden": {"kernel": kernel[:, :, inputs:]},
    }


def _then(first: Weights, second: Weights) -> Weights:
    """One 1x1 layer for two, the second without bias."""
    matrix = second["kernel"][0, 0]
    return {"kernel": first["kernel"] @ matrix, "bias": first["bias"] @ matrix}


def _beside(*layers: Weights) -> Weights:
    """One layer with the outputs of all."""
    return {
        name: np.concatenate([layer[name] for layer in layers], -1)
        for name in ("kernel", "bias")
    }
