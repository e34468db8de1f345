"""Counts of parameters and operations, compared with published numbers."""

import subprocess
import sys

import pytest

from dmnet_jax.complexity import (
    ROWS,
    main,
    paper_operations,
    parameters,
    step_complexity,
)
from dmnet_jax.models.dmnet import DMNet

SIZE = (512, 640)
# BottleneckLSTM at 16x20: the filter of one frame and half of its bottleneck; filters
# and four gates of five frames, except the first forget gate; and the other half of
# four bottlenecks.
CELL = 320 * 256 * (9 + 256 + 5 * 9 + 19 * 256 + 4 * 256)


def model(row: str, classes: int = 8) -> DMNet:
    switches = next(r.switches for r in ROWS if r.name == row)
    return DMNet(num_classes=classes, **switches)


@pytest.mark.parametrize(
    ("classes", "expected"), [(2, 3240770), (4, 3245380), (8, 3254600), (12, 3263820)]
)
def test_parameters_of_the_base_network(classes, expected):
    assert parameters(model("base", classes)) == expected


@pytest.mark.parametrize(
    ("row", "added"),
    [
        ("local: BLSTM", 398336),
        ("local: CLSTM", 4719616),
        ("+ AGA", 442560),
        ("+ ELA", 398336 + 442560),
        ("DMNet (both)", 398336 + 2 * 442560),
        ("both, one projection", 398336 + 442560),
        ("the release: BLSTM + AGA", 4095496 - 3254600),
    ],
)
def test_parameters_of_the_memories(row, added):
    assert parameters(model(row)) - parameters(model("base")) == added


def test_operations_of_the_base_network():
    cost = step_complexity(model("base"), SIZE)
    assert cost.convolution / 1e9 == pytest.approx(1.9480 + 8.1684, abs=1e-3)
    assert cost.norm / 1e9 == pytest.approx(0.0916, abs=1e-3)
    assert cost.attention == 0


def test_operations_of_the_recurrent_cells():
    base = step_complexity(model("base"), SIZE).convolution
    for row, expected in (("local: BLSTM", 0.5074), ("local: CLSTM", 3.7749)):
        added = step_complexity(model(row), SIZE).convolution - base
        assert added / 1e9 == pytest.approx(expected, abs=1e-3)


def test_the_counting_rule_reproduces_printed_numbers():
    for row in ("base", "local: BLSTM"):
        printed = next(r.operations for r in ROWS if r.name == row)
        assert paper_operations(model(row), SIZE) / 1e9 == pytest.approx(
            printed, abs=0.006
        )


def test_keys_and_values_are_counted_once_per_evaluation():
    once = 256 * (64 + 128) * 9 * 16 * 20  # one projection, 0.1416 G
    base = step_complexity(model("base"), SIZE)
    for row, projections, frames_read in (
        ("+ AGA", 1, 4),
        ("+ ELA", 1, 1),
        ("DMNet (both)", 2, 5),
        ("local: NL", 1, 5),
    ):
        step = step_complexity(model(row), SIZE)
        cell = 0 if row in ("+ AGA", "local: NL") else CELL
        assert step.convolution - base.convolution - cell == projections * once
        assert step.attention == frames_read * (16 * 20) ** 2 * (64 + 128)
        assert step.norm == base.norm
    # By the paper's rule, the four frames read and the query are projected.
    assert paper_operations(model("+ AGA"), SIZE) == sum(base) + 5 * once


def test_attention_to_masks_is_counted():
    fields = {"local": "none", "global_values": "masks", "key_channels": 32}
    model = DMNet(num_classes=5, num_reads=3, global_size=3, **fields)
    step = step_complexity(model, (256, 320))
    assert step.attention == (3 + 1) * (16 * 20) ** 2 * (33 + 5)


def test_help_does_not_import_jax():
    code = (
        "import sys; from dmnet_jax.complexity import main\n"
        "try: main(['--help'])\n"
        "finally: assert 'jax' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--size" in run.stdout


def test_the_command_prints_every_row(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in ROWS:
        cells = next(line for line in lines if row.name in line).split("|")
        assert cells[2].strip() == f"{parameters(model(row.name)) / 1e6:.3f}"
        assert (row.parameters is None) == (cells[3].strip() == "")
    assert any("10.208 | 10.21 (-0.002)" in line for line in lines)
    with pytest.raises(SystemExit) as stopped:
        main(["--size", "60", "96"])
    assert stopped.value.code == 2
