"""Benchmark worker of this project's OpenVINO export.

Runs the same step in float32, bfloat16 and int8. The loss of quality from rounding is
measured with the shipped network on rendered, labeled scenes, because the benchmark's
own network is not trained.
"""

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file

from dmnet_jax import machine, models
from dmnet_jax.benchmark.live_case import (
    CHECKED,
    CLASSES,
    LiveCase,
    checked_scene,
    compared,
    differences,
    scenes,
    stacked,
    timed,
    timed_frames,
)
from dmnet_jax.checkpoint.runs import PRETRAINED
from dmnet_jax.config import Config, DataConfig
from dmnet_jax.datasets import open_videos
from dmnet_jax.export import calibration, onnx_graph, openvino_ir, quantization
from dmnet_jax.export.int8_gate import gate
from dmnet_jax.streaming import load_artifact, load_run
from dmnet_jax.streaming.artifact import write_artifact
from dmnet_jax.streaming.described import read_description
from dmnet_jax.streaming.processor import INT8_IS_SLOW, computes_int8
from dmnet_jax.streaming.program import Interface, Program
from dmnet_jax.streaming.runtimes import has_bf16
from dmnet_jax.weights.layout import unflatten

_NAMES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}
DTYPES = {"export": "fp32", "export-bf16": "bf16", "export-int8": "int8"}
"""Compute precision of each kind of worker."""

SCORED = 6
"""Number of rendered scenes to score, of `calibration.RENDERED_FRAMES` frames each."""


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Like `jax_live.prepare`, from the files that it wrote.

    If the processor does not support the precision, the report has a "left_out" entry.
    """
    dtype = DTYPES[kind]
    if dtype == "bf16" and not has_bf16():
        return {"left_out": "left out: this processor has no bfloat16"}, dict
    model = models.build_dmnet(Config(data=DataConfig(num_classes=CLASSES)))
    variables = unflatten(load_file(folder / "variables.safetensors"))
    interface = Interface(case.size, 1, CLASSES, case.size)
    pictures = scenes(case)
    start = time.perf_counter()
    place = folder / dtype
    place.mkdir()
    seen = calibration.Calibration([_clip(pictures)], "the benchmark's scenes")
    program = _program(place, model, variables, interface, dtype, seen)
    report: dict[str, Any] = {"compile_s": time.perf_counter() - start}
    memory = program.init_memory(jax.random.key(0))

    def step(frames: np.ndarray) -> Any:
        nonlocal memory
        memory, out = program.step(memory, frames)
        return out

    start = time.perf_counter()
    outputs = [compared(step(pictures[0]))]
    report["first_s"] = time.perf_counter() - start
    outputs += [compared(step(pictures[checked_scene(k)])) for k in range(1, CHECKED)]
    expected = load_file(folder / "outputs.safetensors")
    following = timed_frames(case)
    if dtype != "fp32":
        report["rounded"] = _cost(place, case.size, dtype)
    if dtype == "int8" and not computes_int8():
        report["note"] = INT8_IS_SLOW
    return {
        **report,
        "dtype": _NAMES[dtype],
        "differences": differences(stacked(outputs), expected),
        "allocator": machine.allocator(),
        "device": "cpu",
        "versions": {"openvino": version("openvino")},
    }, lambda: {"end_to_end": timed(lambda: step(following()).labels, case.seconds)}


def _program(
    folder: Path,
    model: Any,
    variables: Any,
    interface: Interface,
    dtype: str,
    seen: calibration.Calibration,
) -> Program:
    """Exports the step and loads it as a user would."""
    content, notes = onnx_graph.export_step(model, variables, interface)
    xml, weights = openvino_ir.convert(content)
    contents = {".xml": xml, ".bin": weights}
    if dtype == "int8":
        path = write_artifact(folder, "float32", contents, interface, notes)
        body = path.with_name(f"{path.name}.json").read_bytes()
        described = read_description(body, ".xml")
        inputs = calibration.Rolled(load_artifact(path), described, seen)
        _, contents = quantization.quantized(contents, inputs)
    notes["dtype"] = dtype
    return load_artifact(write_artifact(folder, dtype, contents, interface, notes))


def _cost(folder: Path, size: tuple[int, int], dtype: str) -> dict[str, float]:
    """Measures the share of differing labels and the loss of mIoU."""
    trained = load_run(PRETRAINED)
    data = calibration.with_size(trained.config.data, size)
    videos = open_videos(data, trained.about["val_videos"][:SCORED])
    seen = calibration.of_training(data, trained.about["train_videos"], size)
    interface = Interface(size, 1, trained.model.num_classes, size)
    both = []
    for kind in ("fp32", dtype):
        place = folder / f"trained-{kind}"
        place.mkdir()
        network = trained.model, trained.variables
        both.append(_program(place, *network, interface, kind, seen))
    found = gate(both[0], both[1], videos)
    return {"labels": found.label_mismatch, "miou": found.drop}


def _clip(pictures: np.ndarray) -> calibration.Clip:
    """Returns a clip that repeats each scene for a few frames."""

    def frames() -> Iterator[np.ndarray]:
        return (pictures[k // 4 % 4, 0] for k in range(16))

    return calibration.Clip(16, frames)
