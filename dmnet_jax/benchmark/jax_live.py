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
from dmnet_jax.benchmark.case import MATMUL_SIZE
from dmnet_jax.benchmark.live_case import (
    CHECKED_FRAMES,
    CLASSES,
    MAX_SIMILARITY,
    WARMUP_STEPS,
    LiveCase,
    checked_scene,
    comparable_outputs,
    frame_source,
    pipeline,
    scenes,
    stack_outputs,
    time_steps,
)
from dmnet_jax.config import Config, DataConfig
from dmnet_jax.streaming import compile
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.layout import flatten

BANDWIDTH_FLOATS = 1 << 26
"""Number of floats copied to measure the bandwidth; larger than any cache."""


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Prepares the case; the reference case also writes its variables and outputs.

    The files are read by `torch_live.prepare` and `openvino_live.prepare`.

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

    def check(frames: Any) -> dict[str, Any]:
        return comparable_outputs(step(frames))

    images = scenes(case)
    start = time.perf_counter()
    outputs = [jax.device_get(check(images[0]))]
    report["first_s"] = time.perf_counter() - start
    outputs += [check(images[checked_scene(k)]) for k in range(1, CHECKED_FRAMES)]
    if case == LiveCase(case.size, seconds=case.seconds):
        save_file(flatten(jax.device_get(variables)), folder / "variables.safetensors")
        save_file(stack_outputs(outputs), folder / "outputs.safetensors")

    next_frame = frame_source(case)
    device_images = jax.device_put(images)

    def send() -> Any:
        labels = step(next_frame()).labels
        labels.copy_to_host_async()
        return labels

    def device_step() -> None:
        step(device_images[0]).labels.block_until_ready()

    def turn() -> dict[str, list[float]]:
        call = pipeline(send, np.asarray, case.in_flight)
        warmup = max(WARMUP_STEPS, case.in_flight)
        end_to_end = time_steps(call, case.seconds, warmup)
        return {
            "end_to_end": end_to_end,
            "device": time_steps(device_step, case.seconds),
        }

    traffic = [variables["params"], memory, images[0], outputs[0]["labels"]]
    return {
        **report,
        **_peaks(case.dtype),
        **_work(model, case),
        "bytes": sum(x.nbytes for x in jax.tree.leaves(traffic)),
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


def _peaks(dtype: str) -> dict[str, float]:
    """Measures the multiply-adds and bytes per second that XLA reaches."""
    matrix = jnp.ones((MATMUL_SIZE, MATMUL_SIZE), dtype)
    multiply = jax.jit(jnp.matmul)
    array = jnp.ones(BANDWIDTH_FLOATS)
    add = jax.jit(lambda x: x + 1)
    seconds = min(
        machine.time_call(lambda: add(array).block_until_ready()) for _ in range(6)
    )
    return {
        "peak": machine.peak_matmul_rate(
            lambda: multiply(matrix, matrix).block_until_ready(), MATMUL_SIZE
        ),
        "bandwidth": 2 * array.nbytes / seconds,
    }
