"""Benchmark worker of this project's streaming step."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from dmnet_jax import complexity, machine, models
from dmnet_jax.benchmark.case import PRODUCT
from dmnet_jax.benchmark.live_case import (
    CHECKED,
    CLASSES,
    MAX_SIMILARITY,
    WARM,
    LiveCase,
    checked_scene,
    compared,
    pipelined,
    scenes,
    stacked,
    timed,
    timed_frames,
)
from dmnet_jax.config import Config, DataConfig
from dmnet_jax.streaming import compile
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.layout import flatten

# Number of floats copied to measure the bandwidth; larger than any cache.
COPIED = 1 << 26


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Prepares the case and writes variables and outputs for `torch_live.prepare`.

    Returns:
        A report, and a function that runs one turn and returns the times of its steps.
    """
    config = Config(data=DataConfig(num_classes=CLASSES))
    model = models.build_dmnet(config).clone(dtype=jnp.dtype(case.dtype))
    variables = initial_variables(model, config)
    thresholds = {"min_confidence": -np.inf, "max_similarity": MAX_SIMILARITY}
    variables["thresholds"] = jax.tree.map(np.float32, thresholds)
    start = time.perf_counter()
    program = compile(model, variables, size=case.size, streams=case.streams)
    report: dict[str, Any] = {"compile_s": time.perf_counter() - start}
    memory = program.init_memory(jax.random.key(0))

    def step(frames: Any) -> Any:
        nonlocal memory
        memory, labeled = program.step(memory, frames)
        return labeled

    pictures = scenes(case)
    start = time.perf_counter()
    outputs = [jax.device_get(compared(step(pictures[0])))]
    report["first_s"] = time.perf_counter() - start
    outputs += [compared(step(pictures[checked_scene(k)])) for k in range(1, CHECKED)]
    if case == LiveCase(case.size, seconds=case.seconds):
        save_file(flatten(jax.device_get(variables)), folder / "variables.safetensors")
        save_file(stacked(outputs), folder / "outputs.safetensors")

    following = timed_frames(case)
    resident = jax.device_put(pictures)

    def send() -> Any:
        labels = step(following()).labels
        labels.copy_to_host_async()
        return labels

    def turn() -> dict[str, list[float]]:
        call = pipelined(send, np.asarray, case.in_flight)
        end_to_end = timed(call, case.seconds, max(WARM, case.in_flight))
        device = timed(
            lambda: step(resident[0]).labels.block_until_ready(), case.seconds
        )
        return {"end_to_end": end_to_end, "device": device}

    touched = [variables["params"], memory, pictures[0], outputs[0]["labels"]]
    return {
        **report,
        **_limits(case.dtype),
        **_work(model, case),
        "bytes": sum(x.nbytes for x in jax.tree.leaves(touched)),
        "allocator": machine.allocator(),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
    }, turn


def _work(model: Any, case: LiveCase) -> dict[str, int]:
    """Returns the parameters, and the multiply-adds of a step without admission."""
    step = complexity.stream_complexity(model, case.size)
    return {
        "parameters": complexity.parameters(model),
        "operations": case.streams * sum(step),
    }


def _limits(dtype: str) -> dict[str, float]:
    """Measures the multiply-adds and bytes per second that XLA reaches here."""
    matrix = jnp.ones((PRODUCT, PRODUCT), dtype)
    multiply = jax.jit(jnp.matmul)
    numbers = jnp.ones(COPIED)
    add = jax.jit(lambda x: x + 1)
    fastest = min(
        machine.time_call(lambda: add(numbers).block_until_ready()) for _ in range(6)
    )
    return {
        "peak": machine.peak_matmul_rate(
            lambda: multiply(matrix, matrix).block_until_ready(), PRODUCT
        ),
        "bandwidth": 2 * numbers.nbytes / fastest,
    }
