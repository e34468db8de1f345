"""Video segmenters behind one face: `init_memory` and `step`."""

from typing import Any

import jax
import jax.numpy as jnp

from dmnet_jax.checkpoint import load_variables
from dmnet_jax.config import Config
from dmnet_jax.models.dmnet import (
    PAPER_MAX_SIMILARITY,
    PAPER_MIN_CONFIDENCE,
    DMNet,
)
from dmnet_jax.weights.imagenet import initialise

__all__ = ["DMNet", "build", "initial_variables", "single_frame"]


def build(config: Config, *, axis_name: str | None = None) -> DMNet:
    """The network that a config describes.

    Args:
        config: its `model` and `data.num_classes` count.
        axis_name: device axis of batch norm in training.
    """
    model = config.model
    return DMNet(
        num_classes=config.data.num_classes,
        local=model.local,
        global_memory=model.global_memory,
        local_size=model.local_size,
        num_reads=model.num_reads,
        global_size=model.global_size,
        key_channels=model.key_channels,
        value_channels=model.value_channels,
        share_key_value=model.share_key_value,
        attention_dropout=model.attention_dropout,
        encoder=model.encoder,
        axis_name=axis_name,
        dtype=jnp.dtype(model.dtype),
    )


def single_frame(model: DMNet) -> DMNet:
    """The same network with both memories off; it shares the rest's parameters."""
    return model.clone(local="none", global_memory=False)


def initial_variables(model: DMNet, config: Config) -> dict[str, Any]:
    """Fresh variables from the config's seed, with the pretrained encoder.

    With `train.start_from`, whole modules that the other run has are taken from there.
    Thresholds are the config's, or the paper's where it leaves them to calibration.

    Raises:
        ValueError: the pretrained file is missing, damaged or does not fit.
    """
    key = jax.random.key(config.train.seed)
    memory = model.init_memory(1, (64, 64), key)
    frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
    variables = jax.jit(model.clone(axis_name=None).init)(key, memory, frames)
    variables = initialise(
        variables, config.model.pretrained, encoder=config.model.encoder
    )
    if config.train.start_from:
        saved, _ = load_variables(config.train.start_from, "newest")
        for collection in ("params", "batch_stats"):
            variables[collection] = _taken(variables[collection], saved[collection])
    return {**variables, "thresholds": _thresholds(config)}


def _taken(own: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """`own` with the modules of `saved` of the same name.

    Raises:
        ValueError: one is of another shape.
    """
    taken = dict(own)
    for name in own.keys() & saved.keys():
        shapes = [jax.tree.map(jnp.shape, tree[name]) for tree in (own, saved)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"train.start_from: its {name!r} is of another shape; the networks "
                "must agree in model.* and data.num_classes"
            )
        taken[name] = jax.tree.map(jnp.asarray, saved[name])
    return taken


def _thresholds(config: Config) -> dict[str, Any]:
    alpha, beta = config.model.min_confidence, config.model.max_similarity
    return {
        "min_confidence": jnp.float32(PAPER_MIN_CONFIDENCE if alpha is None else alpha),
        "max_similarity": jnp.float32(PAPER_MAX_SIMILARITY if beta is None else beta),
    }
