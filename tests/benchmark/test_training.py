"""The training benchmark: operation counts, batches and report; nothing is timed."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from dmnet_jax import complexity, machine
from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import training
from dmnet_jax.benchmark.case import Case, differences, random_batch
from dmnet_jax.models.dmnet import DMNet

ROW = {
    "memory": False,
    "size": (256, 320),
    "batch": 4,
    "network": "single-frame",
    "framework": "jax",
    "step_s": [1.0, 2.0, 3.0],
    "samples_per_s": 2.0,
    "ratio": 1.0,
    "memory_bytes": 3 * 2**30,
    "operations_per_s": 4e9,
    "share_of_peak": 0.5,
    "compile_s": 30.0,
    "waiting": 0.01,
}


def test_a_step_is_three_forward_passes_where_there_is_a_gradient():
    single = Case(memory=False, size=(64, 96), batch=2)
    step = complexity.step_complexity(DMNet(8).single_frame(), (64, 96))
    assert training.step_operations(single) == 3 * 2 * step.convolution
    # Eight more frames are encoded once, which is far less than nine times the work.
    dmnet = Case(memory=True, size=(64, 96), batch=2)
    ratio = training.step_operations(dmnet) / training.step_operations(single)
    assert 1.3 < ratio < 2.5


def test_batches_have_the_shape_of_clips():
    batch = random_batch(Case(memory=True, size=(64, 96), batch=2), 8)
    assert batch["frames"].shape == (2, 5, 64, 96, 3)
    assert batch["past"].shape == (2, 4, 64, 96, 3)
    assert batch["label"].shape == (2, 64, 96) and batch["label"].max() < 8
    single = random_batch(Case(memory=False, size=(64, 96), batch=2), 8)
    assert single["frames"].shape[1] == 1 and single["past"].shape[1] == 0


def test_differences_are_relative_and_need_all_gradients(tmp_path):
    reference = tmp_path / "reference.safetensors"
    arrays = {
        "loss": np.float64(2),
        "logits": np.ones((2, 2)),
        "gradient/a": np.full(4, 3.0),
    }
    save_file({name: np.asarray(a) for name, a in arrays.items()}, reference)
    actual = {**arrays, "loss": np.float64(2.2), "gradient/b": np.ones(1)}
    result = differences(actual, reference)
    assert result == {"loss": pytest.approx(0.1), "logits": 0, "gradient": 0}
    with pytest.raises(AssertionError, match="gradient/a"):
        differences({"loss": arrays["loss"], "logits": arrays["logits"]}, reference)


def test_report_names_machine_and_failures():
    failed = {**{k: ROW[k] for k in ("size", "batch", "network")}, "failed": "memory"}
    result = {
        "machine": machine.describe(),
        "differences": {"DMNet": {"loss": 1e-9}},
        "rows": [ROW, {**ROW, "framework": "torch", "ratio": 1.25}, failed],
    }
    text = training.report(json.loads(json.dumps(result)))
    assert "2.000" in text and "PyTorch" in text and "1.25" in text
    assert "loss 1.0e-09" in text and "memory" in text
    assert result["machine"]["allocator"] in text


def test_peak_is_products_divided_by_time():
    calls = []
    assert machine.peak_matmul_rate(lambda: calls.append(1), 100) > 1e6
    assert len(calls) == 11
    assert machine.peak_memory() > 2**20


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--size", "100", "64"], "multiples of 32"),
        (["--batch", "0"], "at least 1"),
        (["--peers"], 'pip install -e ".[peers]"'),
    ],
)
def test_invalid_flags_are_one_error_line(flags, message, capsys, monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        command.main(["training", *flags])
    assert error.value.code == 2
    assert message in capsys.readouterr().err
