"""Import of ImageNet encoder weights from Keras or torchvision.

This module imports DMNet's MobileNetV2. VGG and ResNet of the baseline networks are in
`torchvision`. Both frameworks omit the 1x1 expansion of MobileNetV2's first block, from
32 to 32 channels, which the paper's encoder (Light-Weight RefineNet) has. It is
initialized so that the imported network computes the same function.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmnet_jax.nn.layers import Padding
from dmnet_jax.weights.files import read_metadata, read_weights
from dmnet_jax.weights.layout import (
    TORCH_NORM,
    WeightsError,
    block_indices,
    check_shapes,
    flatten,
    norm_table,
    rearrange,
    unflatten,
)
from dmnet_jax.weights.torchvision import from_torchvision_classifier

SHIPPED = Path(__file__).with_name("mobilenet_v2_imagenet.safetensors")
EPSILON: dict[str, float] = {"keras": 1e-3, "torch": 1e-5}

_KERAS_NORM = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def from_keras(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts Keras Applications' MobileNetV2 (width 1) to the encoder's variables.

    Args:
        arrays: arrays by Keras' names, such as "block_1_expand/kernel". `Conv_1` and
            the classifier are ignored.

    Returns:
        {"params": ..., "batch_stats": ...} of `MobileNetV2("keras", 1e-3)`.

    Raises:
        WeightsError: an array is missing, unknown, or has another shape.
    """
    table = _keras_table()
    unneeded = [n for n in arrays if n.split("/")[0] in _KERAS_TOP]
    return _encoder(arrays, table, unneeded, "keras", "the Keras MobileNetV2")


def from_torchvision(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Converts torchvision's `mobilenet_v2` (width 1) to the encoder's variables.

    Args:
        state: state dict. The last convolution and the classifier are ignored.

    Returns:
        {"params": ..., "batch_stats": ...} of `MobileNetV2("torch", 1e-5)`.

    Raises:
        WeightsError: an array is missing, unknown, or has another shape.
    """
    unneeded = [
        name
        for name in state
        if name.endswith(".num_batches_tracked")
        or name.startswith(("features.18.", "classifier."))
    ]
    table = _torchvision_table()
    return _encoder(state, table, unneeded, "torch", "the torchvision mobilenet_v2")


def initialize(
    variables: Mapping[str, Any], pretrained: str, *, encoder: Padding
) -> dict[str, Any]:
    """Replaces the encoder's parameters and running statistics.

    Args:
        variables: variables of a network whose encoders are named "backbone"; they are
            not modified. The first expansion is skipped if the network has none.
        pretrained: "imagenet" (the shipped Keras weights), "none", or the path of a
            Keras `.npz`, a torchvision `.pth`, or a `.safetensors` of either or of
            this project.
        encoder: the framework whose encoder the network reproduces.

    Returns:
        New variables. All arrays except the encoders' are shared with `variables`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file does not contain such an encoder, or is for the other
            framework.
    """
    if pretrained == "none":
        return dict(variables)
    path = SHIPPED if pretrained == "imagenet" else Path(pretrained)
    backbone, framework = read_backbone(path)
    if framework != encoder:
        raise WeightsError(
            f"{path}: weights of a {framework} encoder, but the network's encoder is "
            f"{encoder}: set encoder={framework!r}, or use other weights"
        )
    replaced = dict(variables)
    for collection, arrays in backbone.items():
        replaced[collection] = _with_backbone(variables[collection], arrays, str(path))
    return replaced


def _with_backbone(collection: Any, arrays: dict[str, Any], source: str) -> Any:
    """Returns a collection with the encoder's arrays at each "backbone" in it."""
    if not isinstance(collection, Mapping):
        return collection
    if "backbone" not in collection:
        return {
            name: _with_backbone(part, arrays, source)
            for name, part in collection.items()
        }
    old = collection["backbone"]
    if "expand_norm" not in old.get("block0", {"expand_norm": None}):
        first = arrays.get("block0", {})
        first = {n: a for n, a in first.items() if not n.startswith("expand")}
        arrays = {**arrays, "block0": first}
    shapes = {n: a.shape for n, a in flatten(old).items()}
    check_shapes(flatten(arrays), shapes, {}, source=source)
    new = jax.tree.map(lambda a, like: jnp.asarray(a, like.dtype), arrays, old)
    return {**collection, "backbone": new}


def read_backbone(path: Path) -> tuple[dict[str, Any], str]:
    """Reads the encoder's variables from a weight file, and their framework.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: the file does not contain an encoder.
    """
    arrays = read_weights(path)
    if "Conv1/kernel" in arrays:
        return from_keras(arrays), "keras"
    if "features.0.0.weight" in arrays:
        return from_torchvision(arrays), "torch"
    if "features.0.weight" in arrays or "layer1.0.conv1.weight" in arrays:
        return from_torchvision_classifier(arrays, str(path)), "torch"
    backbone = {
        name.replace("/backbone/", "/", 1): array
        for name, array in arrays.items()
        if name.startswith(("params/backbone/", "batch_stats/backbone/"))
    }
    framework = read_metadata(path).get("encoder")
    if not backbone or framework not in EPSILON:
        raise WeightsError(
            f"{path}: not MobileNetV2 of Keras or torchvision, VGG or ResNet of "
            "torchvision, or a file written by `python -m dmnet_jax.weights convert`"
        )
    return unflatten(backbone), framework


def clipped_moments(
    mean: np.ndarray, deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and variance of relu6(z) for normal z, by quadrature.

    Args:
        mean: [C], means of z.
        deviation: [C], non-negative standard deviations of z.

    Returns:
        Mean and variance, float64 [C] each.
    """
    z = np.linspace(-8.0, 8.0, 16001)
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()
    clipped = np.clip(
        mean[:, None].astype(np.float64) + deviation[:, None] * z, 0.0, 6.0
    )
    first = clipped @ weights
    return first, ((clipped - first[:, None]) ** 2) @ weights


def _encoder(
    arrays: Mapping[str, np.ndarray],
    table: dict[str, str],
    unneeded: list[str],
    framework: str,
    source: str,
) -> dict[str, Any]:
    flat = rearrange(arrays, table, unneeded, source=source)
    return unflatten(flat | _first_expansion(flat, EPSILON[framework]))


def _first_expansion(
    flat: Mapping[str, np.ndarray], epsilon: float
) -> dict[str, np.ndarray]:
    """Initializes the first expansion as an identity; block 0's input is in [0, 6].

    With running statistics it is the identity up to rounding. With batch statistics it
    is approximately so, because the statistics are those implied by the stem's batch
    norm. The variance is at least epsilon, so that channels that the stem almost always
    clips are not suppressed in batches where they are active.
    """
    mean, var = clipped_moments(
        flat["params/stem_norm/bias"], np.abs(flat["params/stem_norm/scale"])
    )
    mean = mean.astype(np.float32)
    var = np.maximum(var, epsilon).astype(np.float32)
    kernel = np.eye(len(mean), dtype=np.float32)[None, None]
    return {
        "params/block0/expand/kernel": kernel,
        "params/block0/expand_norm/scale": np.sqrt(var + np.float32(epsilon)),
        "params/block0/expand_norm/bias": mean,
        "batch_stats/block0/expand_norm/mean": mean.copy(),
        "batch_stats/block0/expand_norm/var": var,
    }


_KERAS_TOP = ("Conv_1", "Conv_1_bn", "Logits", "predictions")


def _keras_table() -> dict[str, str]:
    table = {"Conv1/kernel": "params/stem/kernel"}
    table |= norm_table("bn_Conv1/", "stem_norm", _KERAS_NORM)
    for index in (i for stage in block_indices() for i in stage):
        theirs = f"block_{index}" if index else "expanded_conv"
        for layer in ("expand", "depthwise", "project")[index == 0 :]:
            array = "depthwise_kernel" if layer == "depthwise" else "kernel"
            ours = f"block{index}/{layer}"
            table[f"{theirs}_{layer}/{array}"] = f"params/{ours}/kernel"
            table |= norm_table(f"{theirs}_{layer}_BN/", f"{ours}_norm", _KERAS_NORM)
    return table


def _torchvision_table() -> dict[str, str]:
    table = {"features.0.0.weight": "params/stem/kernel"}
    table |= norm_table("features.0.1.", "stem_norm", TORCH_NORM)
    for index in (i for stage in block_indices() for i in stage):
        theirs = f"features.{index + 1}.conv"
        layers = ("expand", "depthwise", "project")[index == 0 :]
        for place, layer in enumerate(layers):
            # Unlike the other layers, the projection and its norm are not nested.
            last = layer == "project"
            conv = f"{theirs}.{place}" if last else f"{theirs}.{place}.0"
            norm = f"{theirs}.{place + 1}" if last else f"{theirs}.{place}.1"
            ours = f"block{index}/{layer}"
            table[f"{conv}.weight"] = f"params/{ours}/kernel"
            table |= norm_table(f"{norm}.", f"{ours}_norm", TORCH_NORM)
    return table
