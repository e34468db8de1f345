"""The training step, a pure function of state and batch.

`train_step` is independent of devices: with `axis_name`, it averages over that axis.
`parallel.data_parallel` runs it on several devices.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from dmnet_jax.config import OptimConfig
from dmnet_jax.config.train import Part, is_memory
from dmnet_jax.models.forward import Batch, Forward, clip
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.nn.resizing import resize
from dmnet_jax.parallel import device_key
from dmnet_jax.training.distillation import Teacher, distillation_loss
from dmnet_jax.training.losses import combined_loss
from dmnet_jax.training.stages import Stage

# Modules whose parameters a single-frame network does not have.
MEMORY_MODULES = (
    "recurrent",
    "local_key_value",
    "global_key_value",
    "mask_memory",
    "prediction_state",
)
_OF_PART = {
    "memory": MEMORY_MODULES,
    "state": ("prediction_state",),
    "masks": ("mask_memory",),
}


class TrainState(struct.PyTreeNode):
    """Everything that a step changes and that resuming needs.

    Attributes:
        step: int32 [], number of steps taken over all stages.
        variables: "params", "batch_stats" and "thresholds" of the model.
        opt_state: optimizer state over all parameters in every stage, so that the
            structure of a checkpoint does not depend on the stage.
        key: PRNG key of dropout and memory reads; folded with step and device.
        skipped: int32 [], number of steps skipped because loss or gradient was not
            finite.
        skipped_in_a_row: int32 [], length of the current run of skipped steps.
    """

    step: Array
    variables: dict[str, Any]
    opt_state: optax.OptState
    key: Array
    skipped: Array
    skipped_in_a_row: Array


def split_params(
    params: Mapping[str, Any], part: Part
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into those that a stage for `part` trains and freezes."""

    def is_trained(name: str) -> bool:
        if is_memory(part):
            return name in _OF_PART[part]
        return part == "all" or name not in MEMORY_MODULES

    return (
        {name: value for name, value in params.items() if is_trained(name)},
        {name: value for name, value in params.items() if not is_trained(name)},
    )


def make_optimizer(optim: OptimConfig, stage: Stage) -> optax.GradientTransformation:
    """Creates Adam with L2 regularization, like torch.optim.Adam (not AdamW).

    Only kernels are decayed, not biases and batch-norm scales. The learning rate rises
    over `warmup_steps` and then drops at each epoch in `drop_epochs`, counted within
    the stage.
    """

    def kernels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key == "kernel", params
        )

    epoch_steps = stage.loader.steps_per_epoch
    schedule = optax.piecewise_constant_schedule(
        optim.lr * stage.lr_scale,
        {epoch * epoch_steps: optim.drop_factor for epoch in optim.drop_epochs},
    )

    def learning_rate(count: Any) -> Array:
        warmup = jnp.minimum(1.0, (count + 1) / max(1, optim.warmup_steps))
        return jnp.asarray(schedule(count) * warmup)

    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm)
        if optim.clip_norm
        else optax.identity(),
        optax.add_decayed_weights(optim.weight_decay, mask=kernels),
        optax.scale_by_adam(),
        # Stores the learning rate in the optimizer state, for the metrics.
        optax.inject_hyperparams(optax.scale_by_learning_rate, static_args="flip_sign")(
            learning_rate
        ),
    )


def create_state(
    variables: dict[str, Any],
    tx: optax.GradientTransformation,
    *,
    key: Array,
    step: int = 0,
    skipped: int = 0,
) -> TrainState:
    """Creates the state at the start of a stage, with a new optimizer state."""
    return TrainState(
        step=jnp.int32(step),
        variables=variables,
        opt_state=tx.init(variables["params"]),
        key=key,
        skipped=jnp.int32(skipped),
        skipped_in_a_row=jnp.int32(0),
    )


def forward_loss(
    variables: dict[str, Any],
    batch: Batch,
    key: Array,
    *,
    model: VideoSegmenter,
    forward: Forward,
    optim: OptimConfig,
    teacher: Teacher | None = None,
    **options: Any,
) -> tuple[Array, tuple[Any, Array, Array]]:
    """Computes the loss over the scored frames of a batch.

    Logits are resized bilinearly to the size of the labels.

    Args:
        variables: variables of the model.
        batch: inputs of `forward`, and `label`.
        key: PRNG key of memory reads and dropout.
        model: the network.
        forward: a function of `models.forward`.
        optim: weights of the losses.
        teacher: predictions to learn as well, see `training.distillation`.
        **options: further arguments of `forward`.

    Returns:
        The loss, and a tuple of new batch statistics, logits [N, H, W, C], and a bool
        array of the frames that were admitted.
    """
    read_key, dropout_key = jax.random.split(key)
    result: Any = model.apply(
        *(variables, batch, read_key),
        method=forward,
        train=True,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats", "auxiliary"],
        **options,
    )
    output, updates = result
    labels = scored_labels(batch)

    def resize_to_labels(logits: Array) -> Array:
        logits = logits.reshape(len(labels), *logits.shape[-3:])
        return resize(logits, (labels.shape[1], labels.shape[2]))

    logits, weights = resize_to_labels(output.logits), optim.loss_weights
    loss = combined_loss(logits, labels, **weights)
    if optim.auxiliary_weight:
        # Each value is sown once per call of the network, as (weight, logits).
        for ((weight, auxiliary),) in updates.get("auxiliary", {}).values():
            term = combined_loss(resize_to_labels(auxiliary), labels, **weights)
            loss += optim.auxiliary_weight * weight * term
    if teacher is not None:
        own = output.logits.reshape(-1, *output.logits.shape[-3:])
        divergence = distillation_loss(own, teacher(batch, read_key))
        loss += optim.distillation_weight * divergence
    statistics = updates.get("batch_stats", variables["batch_stats"])
    return loss, (statistics, logits, output.admitted)


def scored_labels(batch: Batch) -> Array:
    """Returns labels [N, H, W]: one per clip, or one per frame of a sequence."""
    labels = batch["label"]
    return labels.reshape(-1, *labels.shape[-2:])


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: VideoSegmenter,
    tx: optax.GradientTransformation,
    optim: OptimConfig,
    forward: Forward = clip,
    part: Part = "all",
    memory_gradient: bool = False,
    truncate: int = 1,
    teacher: Teacher | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array | None]]:
    """Takes one optimizer step on a batch.

    Args:
        state: state before the step; may be donated.
        batch: inputs of `forward`, and `label` [B, H, W], or [B, T, H, W] if every
            frame is scored; 255 where a pixel is not scored.
        model: the network, with the same `axis_name`.
        tx: optimizer from `make_optimizer`.
        optim: weights of the losses.
        forward: a function of `models.forward`; defines the kind of batch and which
            frames are scored.
        part: part of the network that is trained. While the encoder is frozen, batch
            norm uses its running statistics and does not update them.
        memory_gradient: see `VideoSegmenter.clip`.
        truncate: see `models.forward.rollout`.
        teacher: see `forward_loss`.
        axis_name: device axis to average over.

    Returns:
        The new state; if the loss or gradient is not finite, only its counters change.
        And metrics, summed over the scored frames of the batch: "loss", "rows" (number
        of frames), "counts" int32 [num_classes, 3] of |P and G|, |P| and |G| in pixels,
        "admitted" int32 [2], the numbers of frames admitted to and offered to the
        global memory; and "grad_norm", "lr" (None if `tx` does not store it),
        "skipped", "skipped_in_a_row".
    """
    key = device_key(state.key, state.step, axis_name)
    trained, frozen = split_params(state.variables["params"], part)

    def loss_fn(trained: Any) -> tuple[Array, tuple[Any, Array, Array]]:
        variables = {**state.variables, "params": {**frozen, **trained}}
        return forward_loss(
            variables,
            batch,
            key,
            model=model,
            forward=forward,
            truncate=truncate,
            batch_statistics=not is_memory(part),
            memory_gradient=memory_gradient and not is_memory(part),
            optim=optim,
            teacher=teacher,
        )

    (loss, (batch_stats, logits, admitted)), gradient = jax.value_and_grad(
        loss_fn, has_aux=True
    )(trained)
    labels = scored_labels(batch)
    rows = jnp.float32(len(labels))
    sums = {
        "loss": loss * rows,
        "rows": rows,
        "counts": pixel_counts(logits, labels),
        "admitted": jnp.int32([admitted.sum(), admitted.size * model.memories.global_]),
    }
    if axis_name is not None:
        gradient, loss, batch_stats = jax.lax.pmean(
            (gradient, loss, batch_stats), axis_name
        )
        sums = jax.lax.psum(sums, axis_name)

    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    params = state.variables["params"]
    gradient = {**jax.tree.map(jnp.zeros_like, frozen), **gradient}
    updates, opt_state = tx.update(gradient, state.opt_state, params)
    updated: Any = optax.apply_updates(params, updates)
    new = {
        **state.variables,
        "params": {**frozen, **{name: updated[name] for name in trained}},
        "batch_stats": batch_stats,
    }
    variables, opt_state = jax.tree.map(
        partial(jnp.where, finite),
        (new, opt_state),
        (state.variables, state.opt_state),
    )
    state = state.replace(
        step=state.step + 1,
        variables=variables,
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
    return state, {
        **sums,
        "grad_norm": norm,
        "lr": _learning_rate(opt_state),
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
    }


def _learning_rate(opt_state: Any) -> Array | None:
    """Returns the learning rate of the last update, if the optimizer stores it."""
    lr: Any = optax.tree.get(
        opt_state, "learning_rate", filtering=lambda _, leaf: isinstance(leaf, Array)
    )
    return lr


def pixel_counts(logits: Array, labels: Array, *, ignore: int = 255) -> Array:
    """Counts |P and G|, |P| and |G| in pixels over a batch: int32 [num_classes, 3]."""
    classes = jnp.arange(logits.shape[-1])
    scored = (labels != ignore)[..., None]
    predicted = (jnp.argmax(logits, -1)[..., None] == classes) & scored
    actual = (labels[..., None] == classes) & scored
    return jnp.stack(
        [
            (predicted & actual).sum((0, 1, 2)),
            predicted.sum((0, 1, 2)),
            actual.sum((0, 1, 2)),
        ],
        axis=-1,
    )


def summarize_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Converts the metrics of `train_step` into means and ratios.

    "admitted" is the fraction of frames that were admitted to the global memory; it is
    left out if there is no global memory. "batch_iou" is the mean over the foreground
    classes in the labels; NaN if there are none.
    """
    overlap, predicted, actual = metrics["counts"].T
    iou = overlap / np.maximum(predicted + actual - overlap, 1)
    present = iou[1:][actual[1:] > 0]
    lr = metrics["lr"]
    summary = {
        "loss": float(metrics["loss"] / metrics["rows"]),
        "lr": float("nan") if lr is None else float(lr),
        "grad_norm": float(metrics["grad_norm"]),
        "batch_iou": float(present.mean()) if present.size else float("nan"),
        "skipped": int(metrics["skipped"]),
    }
    admitted, offered = metrics["admitted"]
    if offered:
        summary["admitted"] = float(admitted / offered)
    return summary


def as_floats(scalars: Mapping[str, Any]) -> dict[str, float]:
    """Converts scalars of any type to Python floats."""
    return {name: float(value) for name, value in scalars.items()}
