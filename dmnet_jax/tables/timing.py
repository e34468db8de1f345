"""Measures the time per frame of networks: one stream, all networks in turn."""

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from dmnet_jax.complexity import variable_shapes


def frame_times(
    networks: Mapping[str, Any], size: tuple[int, int], rounds: int
) -> dict[str, np.ndarray]:
    """Measures the compiled `step` of each network on one stream.

    A step takes a frame [1, *size, 3] with the memory donated and returns logits. The
    networks take turns, one step each, so that all run under the same conditions. Two
    warm-up rounds are not counted. Weights are random: shapes are fixed, so neither the
    weights nor the fill of the memory affect the amount of work.

    Args:
        networks: networks by name.
        size: (H, W) of the frames.
        rounds: number of measured steps per network.

    Returns:
        Milliseconds per step, [rounds], by name.
    """
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (8, 1, *size, 3), np.uint8)
    streams = {}
    for name, network in networks.items():
        step = jax.jit(partial(network.apply, method="step"), donate_argnums=1)
        memory = network.init_memory(1, size, jax.random.key(0))
        streams[name] = [step, jax.device_put(_variables(network)), memory]
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(-2, rounds):
        for name, stream in streams.items():
            step, variables, memory = stream
            start = time.perf_counter()
            memory, output = step(variables, memory, frames[turn % len(frames)])
            jax.block_until_ready((memory, output))
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
            stream[2] = memory
    return {name: np.array(values) for name, values in times.items()}


def summary(times: np.ndarray) -> dict[str, float]:
    """Returns mean (as in the paper), frames per second from it, and percentiles."""
    p50, p95, p99 = np.percentile(times, (50, 95, 99)).tolist()
    mean = float(times.mean())
    return {
        "ms": mean,
        "fps": 1e3 / mean,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "frames": len(times),
    }


def _variables(network: Any) -> Any:
    """Draws variables at a scale that avoids subnormal numbers, which are slow."""
    rng = np.random.default_rng(0)

    def leaf(path: Any, x: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            drawn = rng.standard_normal(x.shape) * (2 / np.prod(x.shape[:-1])) ** 0.5
            return drawn.astype(x.dtype)
        return np.full(x.shape, name in ("scale", "var"), x.dtype)

    return jax.tree_util.tree_map_with_path(leaf, variable_shapes(network))
