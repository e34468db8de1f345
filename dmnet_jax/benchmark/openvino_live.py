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
    CHECKED_FRAMES,
    CLASSES,
    LiveCase,
    checked_scene,
    comparable_outputs,
    differences,
    frame_source,
    scenes,
    stack_outputs,
    time_steps,
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

PRECISIONS = {"export": "fp32", "export-bf16": "bf16", "export-int8": "int8"}
"""Compute precision of each kind of worker."""

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8"}

SCORED_VIDEOS = 6
"""Number of rendered scenes to score, of `calibration.RENDERED_FRAMES` frames each."""


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Like `jax_live.prepare`, from the files that it wrote.

    If the processor does not support the precision, the report is {"skipped": reason}.
    """
    precision = PRECISIONS[kind]
    if precision == "bf16" and not has_bf16():
        return {"skipped": "this processor has no bfloat16"}, dict
    model = models.build_dmnet(Config(data=DataConfig(num_classes=CLASSES)))
    variables = unflatten(load_file(folder / "variables.safetensors"))
    interface = Interface(case.size, 1, CLASSES, case.size)
    images = scenes(case)
    start = time.perf_counter()
    program_folder = folder / precision
    program_folder.mkdir()
    data = calibration.Calibration([_clip(images)], "the benchmark's scenes")
    program = _program(program_folder, model, variables, interface, precision, data)
    report: dict[str, Any] = {"compile_s": time.perf_counter() - start}
    memory = program.init_memory(jax.random.key(0))

    def step(frames: np.ndarray) -> Any:
        nonlocal memory
        memory, labeled = program.step(memory, frames)
        return labeled

    def check(frames: np.ndarray) -> dict[str, Any]:
        return comparable_outputs(step(frames))

    start = time.perf_counter()
    outputs = [check(images[0])]
    report["first_s"] = time.perf_counter() - start
    outputs += [check(images[checked_scene(k)]) for k in range(1, CHECKED_FRAMES)]
    expected = load_file(folder / "outputs.safetensors")
    next_frame = frame_source(case)
    if precision != "fp32":
        report["rounded"] = _rounding_cost(program_folder, case.size, precision)
    if precision == "int8" and not computes_int8():
        report["note"] = INT8_IS_SLOW

    def turn() -> dict[str, list[float]]:
        times = time_steps(lambda: step(next_frame()).labels, case.seconds)
        return {"end_to_end": times}

    return {
        **report,
        "dtype": _DTYPES[precision],
        "differences": differences(stack_outputs(outputs), expected),
        "allocator": machine.allocator(),
        "device": "cpu",
        "versions": {"openvino": version("openvino")},
    }, turn


def _program(
    folder: Path,
    model: Any,
    variables: Any,
    interface: Interface,
    precision: str,
    data: calibration.Calibration,
) -> Program:
    """Exports the step and loads the file, as the export command and a user do."""
    content, notes = onnx_graph.export_step(model, variables, interface)
    xml, weights = openvino_ir.convert(content)
    contents = {".xml": xml, ".bin": weights}
    if precision == "int8":
        path = write_artifact(folder, "float32", contents, interface, notes)
        body = path.with_name(f"{path.name}.json").read_bytes()
        description = read_description(body, ".xml")
        inputs = calibration.Rolled(load_artifact(path), description, data)
        _, contents = quantization.quantized(contents, inputs)
    notes["dtype"] = precision
    return load_artifact(write_artifact(folder, precision, contents, interface, notes))


def _rounding_cost(
    folder: Path, size: tuple[int, int], precision: str
) -> dict[str, float]:
    """Measures the share of labels that differ from float32, and the loss of mIoU."""
    trained = load_run(PRETRAINED)
    data = calibration.with_size(trained.config.data, size)
    videos = open_videos(data, trained.about["val_videos"][:SCORED_VIDEOS])
    clips = calibration.of_training(data, trained.about["train_videos"], size)
    interface = Interface(size, 1, trained.model.num_classes, size)
    network = trained.model, trained.variables

    def export(precision: str) -> Program:
        program_folder = folder / f"trained-{precision}"
        program_folder.mkdir()
        return _program(program_folder, *network, interface, precision, clips)

    result = gate(export("fp32"), export(precision), videos)
    return {"labels": result.label_mismatch, "miou": result.drop}


def _clip(images: np.ndarray) -> calibration.Clip:
    """Returns a clip of 16 frames with each scene repeated for four."""

    def frames() -> Iterator[np.ndarray]:
        return (images[k // 4 % 4, 0] for k in range(16))

    return calibration.Clip(16, frames)
