"""The predictions of a teacher, from which a smaller network learns.

A network with fewer channels (`model.width`) loses accuracy. It loses less if it also
learns the class probabilities of the wider network in every pixel (Hinton et al.,
"Distilling the Knowledge in a Neural Network", 2015, at temperature 1), and if it
starts from the wider network's encoder.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from dmnet_jax.checkpoint.runs import load_run
from dmnet_jax.config import Config
from dmnet_jax.models import VideoSegmenter
from dmnet_jax.models.forward import Batch, Forward

Teacher: TypeAlias = Callable[[Batch, Array], Array]
"""From a batch and a PRNG key to logits [N, h, w, C]; constant under the gradient."""


def load_teacher(config: Config) -> tuple[VideoSegmenter, Any]:
    """Loads `train.teacher` as a single-frame network.

    Returns:
        The network and its variables.

    Raises:
        ValueError: it cannot be loaded, or its classes are not those of the config.
    """
    trained = load_run(config.train.teacher, memory=False)
    classes = trained.config.data.num_classes
    if classes != config.data.num_classes:
        raise ValueError(
            f"train.teacher {config.train.teacher} has {classes} classes; it must have "
            f"as many as data.num_classes, {config.data.num_classes}"
        )
    return trained.model, trained.variables


def teacher_of(
    model: VideoSegmenter, variables: Any, forward: Forward, *, truncate: int = 1
) -> Teacher:
    """Returns the predictions of a network for the batches of a stage.

    Args:
        model: the teacher.
        variables: its variables.
        forward: the stage's function of `models.forward`.
        truncate: see `models.forward.rollout`.
    """

    def teacher(batch: Batch, key: Array) -> Array:
        output: Any = model.apply(
            variables, batch, key, method=forward, train=False, truncate=truncate
        )
        logits = jax.lax.stop_gradient(output.logits)
        return logits.reshape(-1, *logits.shape[-3:])

    return teacher


def distillation_loss(logits: Array, teacher: Array) -> Array:
    """Computes the Kullback-Leibler divergence from the teacher, averaged over pixels.

    Args:
        logits: [N, h, w, C], of the network that learns.
        teacher: [N, h, w, C], logits of the teacher.

    Returns:
        float32 []; 0 if both predict the same.

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != teacher.shape:
        raise ValueError(
            f"logits are {logits.shape}, those of the teacher {teacher.shape}; both "
            "networks must predict the same classes at the same size"
        )
    log_q = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_p = jax.nn.log_softmax(teacher.astype(jnp.float32))
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1))
