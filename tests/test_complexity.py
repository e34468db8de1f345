"""Counts against the published networks' exact sizes."""

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
    ],
)
def test_parameters_of_the_memories(row, added):
    assert parameters(model(row)) - parameters(model("base")) == added


def test_operations_of_the_base_network():
    counted = step_complexity(model("base"), SIZE)
    assert counted.convolution / 1e9 == pytest.approx(1.9480 + 8.1684, abs=1e-3)
    assert counted.norm / 1e9 == pytest.approx(0.0916, abs=1e-3)
    assert counted.attention == 0


def test_operations_of_the_recurrent_cells():
    base = step_complexity(model("base"), SIZE).convolution
    for row, expected in (("local: BLSTM", 0.6365), ("local: CLSTM", 7.5497)):
        added = step_complexity(model(row), SIZE).convolution - base
        assert added / 1e9 == pytest.approx(expected, abs=1e-3)


def test_rows_that_the_counting_rule_explains():
    for row in ("base", "local: BLSTM"):
        printed = next(r.operations for r in ROWS if r.name == row)
        assert paper_operations(model(row), SIZE) / 1e9 == pytest.approx(
            printed, abs=0.006
        )


def test_command_prints_every_row(capsys):
    assert main(["--size", "64", "96", "--classes", "3"]) == 0
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in ROWS)
    with pytest.raises(SystemExit) as stopped:
        main(["--size", "60", "96"])
    assert stopped.value.code == 2
