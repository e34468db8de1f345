"""One training step: state in, batch in, state out, whatever the devices.

`train_step` knows no devices: with `axis_name` it averages over that axis, without
it is plain. `parallel.data_parallel` runs it on several.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array

from dmnet_jax.config import OptimConfig
from dmnet_jax.models.forward import Batch, Forward, clip
from dmnet_jax.models.protocol import VideoSegmenter
from dmnet_jax.nn.resizing import enlarge
from dmnet_jax.parallel import device_key
from dmnet_jax.training.losses import combined_loss
from dmnet_jax.training.stages import Stage

Part = Literal["all", "memory", "single_frame"]

# Parameters that a single-frame network does not have.
MEMORY_MODULES = (
    "recurrent",
    "local_key_value",
    "global_key_value",
    "prediction_state",
)


class TrainState(struct.PyTreeNode):
    """Everything that a step changes, and so everything that a resume needs.

    Attributes:
        step: int32 [], steps taken over all stages.
        variables: "params", "batch_stats" and "thresholds" of the model.
        opt_state: over all parameters in every stage, so that the shape of a
            checkpoint does not depend on the stage.
        key: of dropout and memory reads; folded by step and device.
        skipped: int32 [], steps not taken since their gradient was not finite.
        skipped_in_a_row: int32 [], the latest of them that followed each other.
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
    """(trained, frozen) parameters of a stage that trains `part`."""
    in_memory = {name: name in MEMORY_MODULES for name in params}
    trained = {
        name: part == "all" or inside == (part == "memory")
        for name, inside in in_memory.items()
    }
    return (
        {name: value for name, value in params.items() if trained[name]},
        {name: value for name, value in params.items() if not trained[name]},
    )


def make_optimizer(optim: OptimConfig, stage: Stage) -> optax.GradientTransformation:
    """Adam with L2 in the gradient, as torch.optim.Adam has it (not AdamW).

    Kernels only are decayed; biases and batch-norm scales are not. The learning rate
    rises over `warmup_steps`, then is constant but for a drop at each epoch of
    `drop_epochs`, counted within the stage.
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

    def warmed(count: Any) -> Array:
        rise = jnp.minimum(1.0, (count + 1) / max(1, optim.warmup_steps))
        return jnp.asarray(schedule(count) * rise)

    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm)
        if optim.clip_norm
        else optax.identity(),
        optax.add_decayed_weights(optim.weight_decay, mask=kernels),
        optax.scale_by_adam(),
        # Keeps the rate in its state, where a step's metrics find it.
        optax.inject_hyperparams(optax.scale_by_learning_rate, static_args="flip_sign")(
            warmed
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
    """The state at the start of a stage: fresh optimiser, given variables."""
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
    **options: Any,
) -> tuple[Array, tuple[Any, Array, Array]]:
    """Loss of the frames that a batch scores.

    Logits are enlarged to the labels' size, bilinear.

    Args:
        variables: of the model.
        batch: what `forward` takes, and `label`.
        key: of reads and dropout.
        model: with the same `axis_name`.
        forward: one of `models.forward`.
        optim: weights of the losses.
        options: of `forward`.

    Returns:
        The loss, and new batch statistics, the logits [N, H, W, C] and bool, which
        frames were admitted.
    """
    read_key, dropout_key = jax.random.split(key)
    stepped: Any = model.apply(
        *(variables, batch, read_key),
        method=forward,
        train=True,
        rngs={"dropout": dropout_key},
        mutable=["batch_stats", "auxiliary"],
        **options,
    )
    output, updates = stepped
    labels = scored_labels(batch)

    def enlarged(logits: Array) -> Array:
        logits = logits.reshape(len(labels), *logits.shape[-3:])
        return enlarge(logits, (labels.shape[1], labels.shape[2]))

    logits, weights = enlarged(output.logits), optim.loss_weights
    loss = combined_loss(logits, labels, **weights)
    if optim.auxiliary_weight:
        # Sown as (weight, logits), a call of the network each.
        for ((weight, others),) in updates.get("auxiliary", {}).values():
            others = combined_loss(enlarged(others), labels, **weights)
            loss += optim.auxiliary_weight * weight * others
    statistics = updates.get("batch_stats", variables["batch_stats"])
    return loss, (statistics, logits, output.admitted)


def scored_labels(batch: Batch) -> Array:
    """Labels [N, H, W]: one a clip, or one a frame of a sequence."""
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
    axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array | None]]:
    """One optimiser step on a batch of clips.

    Args:
        state: donated by the caller.
        batch: what `forward` takes, and `label`, [B, H, W] or of every frame
            [B, T, H, W], 255 where it is not scored.
        model: with the same `axis_name`.
        tx: of `make_optimizer`.
        optim: weights of the losses.
        forward: of `models.forward`: what a batch is, and which frames are scored.
        part: what this stage trains. Batch norm uses its running statistics, and
            keeps them, while the encoder is frozen.
        memory_gradient: see `VideoSegmenter.clip`.
        truncate: see `models.forward.rollout`.
        axis_name: device axis to average over.

    Returns:
        The new state, unchanged but for its counters when loss or gradient is not
        finite, and sums over the batch's scored frames: "loss", "rows", "counts" int32
        [num_classes, 3] of |P and G|, |P|, |G| pixels, "admitted" int32 [2] of frames
        admitted to the global memory and offered to it; with "grad_norm", "lr" (None
        if `tx` does not tell), "skipped" and "skipped_in_a_row".
    """
    key = device_key(state.key, state.step, axis_name)
    trained, frozen = split_params(state.variables["params"], part)

    def loss_of(trained: Any) -> tuple[Array, tuple[Any, Array, Array]]:
        variables = {**state.variables, "params": {**frozen, **trained}}
        return forward_loss(
            variables,
            batch,
            key,
            model=model,
            forward=forward,
            truncate=truncate,
            batch_statistics=part != "memory",
            memory_gradient=memory_gradient and part != "memory",
            optim=optim,
        )

    (loss, (batch_stats, logits, admitted)), gradient = jax.value_and_grad(
        loss_of, has_aux=True
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
    stepped: Any = optax.apply_updates(params, updates)
    new = {
        **state.variables,
        "params": {**frozen, **{name: stepped[name] for name in trained}},
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
    """What the latest update was scaled by, if its optimiser keeps that."""
    rate: Any = optax.tree.get(
        opt_state, "learning_rate", filtering=lambda _, leaf: isinstance(leaf, Array)
    )
    return rate


def pixel_counts(logits: Array, labels: Array, *, ignore: int = 255) -> Array:
    """int32 [num_classes, 3]: pixels of |P and G|, |P| and |G| over a batch."""
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


def readable(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Means and ratios of a step's sums, for a log.

    "admitted" is the share of frames that the thresholds let into the global memory;
    left out where there is none. "batch_iou" is NaN where no class is labelled.
    """
    overlap, predicted, actual = metrics["counts"].T
    iou = overlap / np.maximum(predicted + actual - overlap, 1)
    admitted, offered = metrics["admitted"]
    rate, share = metrics["lr"], {"admitted": float(admitted / max(1, offered))}
    known = iou[1:][actual[1:] > 0]
    return {
        "loss": float(metrics["loss"] / metrics["rows"]),
        "lr": float("nan") if rate is None else float(rate),
        "grad_norm": float(metrics["grad_norm"]),
        "batch_iou": float(known.mean()) if known.size else float("nan"),
        "skipped": int(metrics["skipped"]),
        **(share if offered else {}),
    }


def plain(tree: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of any kind as Python floats."""
    return {name: float(value) for name, value in tree.items()}
