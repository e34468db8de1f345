"""The variables that a run starts from: drawn, pretrained, or of another run."""

import logging
from typing import Any

import jax
import jax.numpy as jnp

from dmnet_jax.checkpoint import load_variables
from dmnet_jax.config import Config
from dmnet_jax.models import VideoSegmenter
from dmnet_jax.models.dmnet import PAPER_MAX_SIMILARITY, PAPER_MIN_CONFIDENCE
from dmnet_jax.weights.imagenet import initialize
from dmnet_jax.weights.layout import flatten, unflatten
from dmnet_jax.weights.rendered import read_rendered

_log = logging.getLogger(__name__)

# Compiler options of a program that runs once: to compile it well takes longer than to
# run it badly. DMNet's start compiles in 10.6 instead of 18.1 s, a small LinkNet's in
# 3.6 instead of 22.9, to the same bits (2 cores of an AMD EPYC, jax 0.10.2,
# 2026-11-25).
RUNS_ONCE: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def initial_variables(model: VideoSegmenter, config: Config) -> dict[str, Any]:
    """Fresh variables from the config's seed, with the pretrained encoder.

    With `train.start_from`, whole modules that the other run has are taken from there.
    Of DMNet, thresholds are the config's, or the paper's where it leaves them to
    calibration.

    Raises:
        ValueError: the pretrained file is missing, damaged or does not fit.
    """
    key = jax.random.key(config.train.seed)
    memory = model.init_memory(1, (64, 64), key)
    frames = jnp.zeros((1, 1, 64, 64, 3), jnp.uint8)
    init = jax.jit(model.clone(axis_name=None).init, compiler_options=RUNS_ONCE)
    variables = init(key, memory, frames)
    variables = {"batch_stats": {}, **variables}  # VGG has none
    pretrained = config.model.pretrained
    if pretrained == "imagenet" and not model.mobilenet:
        _log.warning(
            "%s STARTS AT RANDOM: ImageNet weights of its encoder are not shipped; "
            "give torchvision's file by --model.pretrained FILE.pth, or say "
            "--model.pretrained none",
            config.model.name,
        )
        pretrained = "none"
    if pretrained == "rendered":
        variables = _from_rendered(variables, config)
    else:
        variables = initialize(variables, pretrained, encoder=model.encoder)
    if config.train.start_from:
        saved, _ = load_variables(config.train.start_from)
        for collection in ("params", "batch_stats"):
            variables[collection] = _taken(variables[collection], saved[collection])
    if "thresholds" in variables:  # of a global memory
        variables["thresholds"] = _thresholds(config)
    return variables


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


def _from_rendered(own: dict[str, Any], config: Config) -> dict[str, Any]:
    """`own` with the arrays of the shipped network where name and shape agree.

    Memories keep their fresh values, and so does a classifier of other classes. The
    shipped prediction state is left out: on EndoVis 2015 a state that started from it
    ended two points lower (docs/memory.md, What was measured).

    Raises:
        ValueError: of a network that is no DMNet with the Keras encoder.
    """
    if config.model.name != "dmnet" or config.model.encoder != "keras":
        raise ValueError(
            'model.pretrained "rendered" is a DMNet with model.encoder "keras"; this '
            "network is another: use its own weights"
        )
    saved = flatten(read_rendered()[0])
    taken: dict[str, Any] = {
        name: jnp.asarray(saved[name])
        if name in saved
        and saved[name].shape == array.shape
        and not name.startswith("params/prediction_state/")
        else array
        for name, array in flatten(own).items()
    }
    return unflatten(taken)


def _thresholds(config: Config) -> dict[str, Any]:
    alpha, beta = config.model.min_confidence, config.model.max_similarity
    return {
        "min_confidence": jnp.float32(PAPER_MIN_CONFIDENCE if alpha is None else alpha),
        "max_similarity": jnp.float32(PAPER_MAX_SIMILARITY if beta is None else beta),
    }
