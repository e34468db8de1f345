"""Initial variables of a run: random, pretrained, or from another run."""

import logging
from typing import Any

import jax
import jax.numpy as jnp

from dmnet_jax.checkpoint.runs import load_run
from dmnet_jax.config import Config
from dmnet_jax.models import VideoSegmenter
from dmnet_jax.models.dmnet import PAPER_MAX_SIMILARITY, PAPER_MIN_CONFIDENCE
from dmnet_jax.weights.imagenet import initialize
from dmnet_jax.weights.layout import flatten, unflatten
from dmnet_jax.weights.network_file import read_network
from dmnet_jax.weights.rendered import SHIPPED

_log = logging.getLogger(__name__)

# Modules that correct the network's predictions.
_CORRECTING = ("mask_memory", "prediction_state")

# Compiler options for programs that run once, where optimization takes longer than it
# saves. DMNet's initialization compiles in 10.6 s instead of 18.1 s, a small LinkNet's
# in 3.6 s instead of 22.9 s, with bit-identical results (2 cores of an AMD EPYC, jax
# 0.10.2, 2026-11-25).
RUNS_ONCE: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def initial_variables(
    model: VideoSegmenter, config: Config, teacher: Any = None
) -> dict[str, Any]:
    """Initializes variables from the config's seed, with the pretrained encoder.

    Arrays of the same name and shape are copied from a teacher. With
    `train.start_from`, modules that the other run also has are copied from it.
    DMNet's thresholds are the config's; those that the config leaves to calibration
    start at the paper's values.

    Raises:
        ValueError: the pretrained file is missing, damaged, or for another network.
    """
    pretrained = config.model.pretrained
    if pretrained in SHIPPED:
        _check_rendered(config)
    key = jax.random.key(config.train.seed)
    memory = model.init_memory(1, (64, 64), key)
    frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
    init = jax.jit(model.clone(axis_name=None).init, compiler_options=RUNS_ONCE)
    variables = init(key, memory, frames)
    variables = {"batch_stats": {}, **variables}  # VGG has no batch norm
    if pretrained == "imagenet" and not model.mobilenet:
        _log.warning(
            "%s STARTS FROM RANDOM WEIGHTS: ImageNet weights of its encoder are not "
            "included; pass torchvision's file with --model.pretrained FILE.pth, or "
            "silence this warning with --model.pretrained none",
            config.model.name,
        )
        pretrained = "none"
    if pretrained in SHIPPED:
        saved = read_network(SHIPPED[pretrained])[0]
        variables = _copy_matching(variables, saved)
        if config.takes_shipped_state:
            state = jax.tree.map(jnp.asarray, saved["params"]["prediction_state"])
            variables["params"]["prediction_state"] = state
    else:
        variables = initialize(variables, pretrained, encoder=model.encoder)
    if teacher is not None:
        variables = _copy_matching(variables, teacher)
    if config.train.start_from:
        saved = load_run(config.train.start_from).variables
        for collection in ("params", "batch_stats"):
            variables[collection] = _merge(variables[collection], saved[collection])
    if "thresholds" in variables:  # the network has a global memory
        variables["thresholds"] = _thresholds(config)
    return variables


def _merge(initial: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Replaces the modules of `initial` that `saved` also has.

    A module that corrects the predictions and has other parts in `saved` keeps its
    initial values, since its parts can be chosen anew for a trained network.

    Raises:
        ValueError: the shapes of another module differ.
    """
    merged = dict(initial)
    for name in initial.keys() & saved.keys():
        shapes = [jax.tree.map(jnp.shape, tree[name]) for tree in (initial, saved)]
        if shapes[0] != shapes[1]:
            if name in _CORRECTING:
                _log.warning(
                    "train.start_from: its %s has other parts and is not used", name
                )
                continue
            raise ValueError(
                f"train.start_from: its {name!r} has a different shape; both runs must "
                "have the same model.* and data.num_classes"
            )
        merged[name] = jax.tree.map(jnp.asarray, saved[name])
    return merged


def _check_rendered(config: Config) -> None:
    """Raises ValueError for a network that cannot start from a shipped one."""
    if config.model.name != "dmnet" or config.model.encoder != "keras":
        raise ValueError(
            f'model.pretrained "{config.model.pretrained}" needs model.name "dmnet" '
            f'and model.encoder "keras", not {config.model.name!r} and '
            f"{config.model.encoder!r}"
        )


def _copy_matching(initial: dict[str, Any], saved: Any) -> dict[str, Any]:
    """Replaces arrays by saved ones of the same name and shape.

    What corrects the network's predictions keeps its initial values.
    """
    arrays = flatten(saved)
    merged: dict[str, Any] = {}
    for name, array in flatten(initial).items():
        merged[name] = array
        usable = name in arrays and arrays[name].shape == array.shape
        if usable and name.split("/")[1] not in _CORRECTING:
            merged[name] = jnp.asarray(arrays[name])
    return unflatten(merged)


def _thresholds(config: Config) -> dict[str, Any]:
    alpha, beta = config.model.min_confidence, config.model.max_similarity
    return {
        "min_confidence": jnp.float32(PAPER_MIN_CONFIDENCE if alpha is None else alpha),
        "max_similarity": jnp.float32(PAPER_MAX_SIMILARITY if beta is None else beta),
    }
