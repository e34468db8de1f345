"""Whether the network computes on this device what it computes elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dmnet_jax import models
from dmnet_jax.benchmark.live_case import (
    CHECKED,
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
    """Reports differences on the default device; there is nothing to time.

    stream: the folded streaming step against `DMNet.step`, frame after frame with
        both memories in use, both in full float32: share of labels that differ.
    rounded: the same step with the device's default products (TF32 on a GPU).
    bfloat16: labels of the bfloat16 step against float32.
    golden: largest relative difference of the authors' outputs, if tests/golden is
        beside this checkout; the files are made with PyTorch on a CPU. In float64 on
        a CPU; in full float32 on a GPU, whose libraries lack products of float64.
    """
    config = Config(data=DataConfig(num_classes=CLASSES))
    model = models.build_dmnet(config)
    variables = initial_variables(model, config)
    thresholds = {"min_confidence": -np.inf, "max_similarity": MAX_SIMILARITY}
    variables["thresholds"] = jax.tree.map(np.float32, thresholds)
    pictures = scenes(case)
    frames = [pictures[checked_scene(k)] for k in range(CHECKED)]

    def streamed(dtype: str, precision: str) -> tuple[np.ndarray, np.ndarray]:
        with jax.default_matmul_precision(precision):
            network = model.clone(dtype=jnp.dtype(dtype))
            program = compile(network, variables, size=case.size)
        memory = program.init_memory(jax.random.key(0))
        found = []
        for frame in frames:
            memory, out = program.step(memory, frame)
            found.append((np.asarray(out.labels), np.asarray(out.admitted)))
        labels, admitted = zip(*found, strict=True)
        return np.stack(labels), np.stack(admitted)

    @jax.jit
    def plain(variables: Any, memory: Any, frame: Array) -> Any:
        apply: Any = model.apply
        memory, output = apply(variables, memory, frame, method="step")
        return memory, resized_argmax(output.logits, case.size), output.admitted

    labels, admitted = [], []
    with jax.default_matmul_precision("highest"):
        memory = model.init_memory(1, case.size, jax.random.key(0))
        for frame in frames:
            memory, label, entered = plain(variables, memory, frame)
            labels.append(np.asarray(label))
            admitted.append(np.asarray(entered))
    truth, decisions = np.stack(labels), np.stack(admitted)
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
        found, entered = streamed(dtype, precision)
        report[name] = {
            "labels": float((found != truth).mean()),
            "admitted": float((entered != decisions).mean()),
        }
    if (GOLDEN / "index.json").is_file():
        dtype = "float64" if jax.default_backend() == "cpu" else "float32"
        report["golden"] = {
            name: max(d.relative for d in check_authors(GOLDEN, name, dtype))
            for name in read_index(GOLDEN)
            if (GOLDEN / f"{name}.npz").is_file()
        }
    return report, dict
