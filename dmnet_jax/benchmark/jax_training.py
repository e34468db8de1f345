"""Benchmark worker of this project's training step."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from dmnet_jax import models, training
from dmnet_jax.benchmark.case import MATMUL_SIZE, Case, random_batch
from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
)
from dmnet_jax.datasets import open_split
from dmnet_jax.machine import peak_matmul_rate, time_call
from dmnet_jax.models import forward
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.training.stages import Stage, build_stages
from dmnet_jax.weights.layout import flatten


def prepare(
    case: Case, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Prepares the case and writes variables and batch, and the reference if exact.

    Returns:
        A report, and a function that runs one step and returns its time.
    """
    jax.config.update("jax_enable_x64", case.exact)
    config = Config(model=ModelConfig(attention_dropout=0.0))
    model = models.build_dmnet(config).clone(
        dtype=jnp.float64 if case.exact else jnp.float32
    )
    if not case.memory:
        model = model.single_frame()
    batch = random_batch(case, model.num_classes)
    variables = initial_variables(model, config)
    if case.exact:
        reference = _reference(model, variables, batch, config)
        save_file(flatten(jax.device_get(reference)), folder / "reference.safetensors")
    save_file(flatten(jax.device_get(variables)), folder / "variables.safetensors")
    save_file(batch, folder / "batch.safetensors")
    if case.exact:
        return {}, dict

    optim, key = config.optim, jax.random.key(0)
    part = "all" if case.memory else "single_frame"
    epoch: Any = _Epoch()
    stage = Stage("", part, "clip", 0, 0, 1.0, epoch, 0, 1)
    tx = training.make_optimizer(optim, stage)
    state = training.create_state(variables, tx, key=key)
    step = jax.jit(
        partial(training.train_step, model=model, tx=tx, optim=optim, part=part),
        donate_argnums=0,
    )
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    report = {"compile_s": time.perf_counter() - start}

    def run_step(arrays: Mapping[str, Any]) -> None:
        nonlocal state
        state, metrics = compiled(state, {name: arrays[name] for name in batch})
        jax.block_until_ready((state, metrics))

    run_step(batch)
    matrix = jnp.ones((MATMUL_SIZE, MATMUL_SIZE))
    multiply = jax.jit(jnp.matmul)
    report["peak"] = peak_matmul_rate(
        lambda: multiply(matrix, matrix).block_until_ready(), MATMUL_SIZE
    )
    if case.loader_steps:
        report["waiting"] = _loader_wait(case, folder, run_step)
    return report, lambda: {"seconds": time_call(lambda: run_step(batch))}


def _reference(
    model: Any, variables: Any, batch: dict[str, np.ndarray], config: Config
) -> dict[str, Any]:
    """Returns the loss, the logits and the gradient of the batch."""

    def loss(params: Any) -> Any:
        return training.forward_loss(
            {**variables, "params": params},
            batch,
            jax.random.key(0),
            model=model,
            forward=forward.clip,
            batch_statistics=True,
            memory_gradient=False,
            optim=config.optim,
        )

    # Runs only once, so compile time matters more than run time.
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }
    loss_and_gradient = jax.jit(
        jax.value_and_grad(loss, has_aux=True), compiler_options=options
    )
    (value, (_, logits, _)), gradient = loss_and_gradient(variables["params"])
    return {"loss": value, "logits": logits, "gradient": gradient}


class _Epoch:
    """Replaces the stage's loader, of which a schedule uses only the length."""

    steps_per_epoch = 1000


def _loader_wait(
    case: Case, folder: Path, run_step: Callable[[Mapping[str, Any]], None]
) -> float:
    """Measures the share of time that a training loop waits for the data loader."""
    batches = _rendered_batches(case, folder)
    run_step(next(batches))  # from here on, the loader prefetches
    waited, start = 0.0, time.perf_counter()
    for _ in range(case.loader_steps):
        wait_start = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - wait_start
        run_step(batch)
    return waited / (time.perf_counter() - start)


def _rendered_batches(case: Case, folder: Path) -> Iterator[Any]:
    """Iterates over clip batches of rendered video."""
    data = DataConfig(
        dataset="synthetic",
        root=str(folder / "rendered"),
        size=case.size,
        train=("instrument_dataset_2",),
        val=("instrument_dataset_3",),
        # Rendered at the default size; opening resizes and caches all frames.
        synthetic=SyntheticConfig(sequences=(2, 3), frames=16),
    )
    stage = StageConfig("", 1000, train="all" if case.memory else "single_frame")
    train = TrainConfig(batch_size=case.batch, stages=(stage,))
    videos, _ = open_split(data)
    loader = build_stages(videos, Config(data=data, train=train))[0].loader
    return loader.iterate(0, case.loader_steps + 1)
