"""Benchmark worker that checks the network's outputs on the default device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmnet_jax import models
from dmnet_jax.benchmark.live_case import (
    CHECKED_FRAMES,
    CLASSES,
    MAX_SIMILARITY,
    LiveCase,
    checked_scene,
    scenes,
)
from dmnet_jax.config import Config, DataConfig
from dmnet_jax.nn.resizing import resized_argmax
from dmnet_jax.streaming import compile
from dmnet_jax.training.initial import initial_variables
from dmnet_jax.weights.checks import check_authors, read_index

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


def prepare(
    case: LiveCase, folder: Path, kind: str
) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Measures differences between computations; there is nothing to time.

    The report has these entries:

    stream: the folded streaming step compared with `DMNet.step`, over consecutive
        frames that fill both memories, both in full float32: shares of labels and of
        admission decisions that differ.
    rounded: the same for a step with the device's default matrix products (TF32 on a
        GPU).
    bfloat16: the same for a bfloat16 step.
    golden: maximum relative differences from the authors' outputs, if there is a
        folder tests/golden in this checkout. These files were computed by PyTorch on a
        CPU. The comparison is in float64 on a CPU, and in full float32 on a GPU, whose
        libraries do not support float64 products.
    """
    config = Config(data=DataConfig(num_classes=CLASSES))
    model = models.build_dmnet(config)
    variables = initial_variables(model, config)
    thresholds = {"min_confidence": -np.inf, "max_similarity": MAX_SIMILARITY}
    variables["thresholds"] = jax.tree.map(np.float32, thresholds)
    images = scenes(case)
    frames = [images[checked_scene(k)] for k in range(CHECKED_FRAMES)]

    def run_program(dtype: str, precision: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and admissions of the streaming step."""
        with jax.default_matmul_precision(precision):
            network = model.clone(dtype=jnp.dtype(dtype))
            program = compile(network, variables, size=case.size)
        memory = program.init_memory(jax.random.key(0))
        labels, admitted = [], []
        for frame in frames:
            memory, out = program.step(memory, frame)
            labels.append(np.asarray(out.labels))
            admitted.append(np.asarray(out.admitted))
        return np.stack(labels), np.stack(admitted)

    @jax.jit
    def model_step(variables: Any, memory: Any, frame: Array) -> Any:
        apply: Any = model.apply
        memory, output = apply(variables, memory, frame, method="step")
        return memory, resized_argmax(output.logits, case.size), output.admitted

    def run_model() -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and admissions of `DMNet.step`."""
        memory = model.init_memory(1, case.size, jax.random.key(0))
        labels, admitted = [], []
        for frame in frames:
            memory, label, admission = model_step(variables, memory, frame)
            labels.append(np.asarray(label))
            admitted.append(np.asarray(admission))
        return np.stack(labels), np.stack(admitted)

    with jax.default_matmul_precision("highest"):
        expected_labels, expected_admitted = run_model()
    report: dict[str, Any] = {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
    }
    for name, dtype, precision in (
        ("stream", "float32", "highest"),
        ("rounded", "float32", "default"),
        ("bfloat16", "bfloat16", "default"),
    ):
        labels, admitted = run_program(dtype, precision)
        report[name] = {
            "labels": float((labels != expected_labels).mean()),
            "admitted": float((admitted != expected_admitted).mean()),
        }
    if (GOLDEN / "index.json").is_file():
        dtype = "float64" if jax.default_backend() == "cpu" else "float32"
        report["golden"] = {
            name: max(d.relative for d in check_authors(GOLDEN, name, dtype))
            for name in read_index(GOLDEN)
            if (GOLDEN / f"{name}.npz").is_file()
        }
    return report, dict
