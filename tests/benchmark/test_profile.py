"""The profile of a step: its parts, their work and the report; nothing is timed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dmnet_jax import complexity
from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import profile
from dmnet_jax.models.dmnet import TINY, DMNet
from dmnet_jax.nn.mobilenet import STAGES
from tests.support.random_variables import random_variables

SIZE = (64, 96)


@pytest.fixture(scope="module")
def trained():
    model = DMNet(3, **{**TINY, "local": "none", "global_memory": False, "state": True})
    return SimpleNamespace(
        model=model,
        variables=random_variables(complexity.variable_shapes(model)),
        config=SimpleNamespace(model=SimpleNamespace(name="dmnet")),
    )


def test_parts_do_all_the_work_of_the_step(trained):
    found = profile.parts(trained.model, trained.variables, SIZE)
    names = [part.name for part in found]
    assert len(names) == len(set(names))
    assert {"backbone/stem", "decoder/crp1", "lateral8", "decoder/classifier"} <= {
        *names
    }
    assert any(name.startswith("prediction_state") for name in names)
    whole = complexity.stream_complexity(trained.model, SIZE)
    assert sum(part.multiply_adds for part in found) == whole.multiply_adds


def test_a_part_computes_what_the_submodule_computes(trained):
    found = profile.parts(trained.model, trained.variables, SIZE)
    part = next(part for part in found if part.name == "lateral8")
    kernel, x = part.arguments[0]["kernel"], part.arguments[1]
    expected = np.einsum(
        "nhwc,cd->nhwd", x, np.asarray(kernel).reshape(x.shape[-1], -1)
    )
    np.testing.assert_allclose(part.run(*part.arguments), expected, 1e-4, 1e-5)
    assert part.multiply_adds == expected.size * x.shape[-1]


def test_times_of_parts_and_rest_add_up_to_the_step(trained, monkeypatch):
    def one_call(call):
        call()
        return 0.002

    monkeypatch.setattr(profile, "_compiled", lambda part: lambda: None)
    monkeypatch.setattr(profile, "_step", lambda trained, size: lambda: None)
    monkeypatch.setattr(profile.machine, "time_call", one_call)
    monkeypatch.setattr(profile.machine, "peak_matmul_rate", lambda call, size: 1e9)
    result = profile.measure(trained, SIZE, 2)
    assert result["step_ms"] == pytest.approx(2)
    assert sum(row["ms"] for row in result["rows"]) == pytest.approx(2)
    names = [row["name"] for row in result["rows"]]
    assert len(names) == len(set(names)) and "encoder, 1/16" in names
    about = {"cpu": "C", "cores": 2, "date": "2026-01-01"}
    text = profile.report({**result, "machine": about, "size": SIZE, "command": "x"})
    assert "everything else" in text and "the step" in text


def test_the_command_writes_its_report(monkeypatch, tmp_path, capsys, trained):
    rows = [{"name": "a", "calls": 1, "ms": 1.0, "multiply_adds": 10**9}]
    result = {"step_ms": 4.0, "peak": 2e12, "rows": rows}
    monkeypatch.setattr(profile, "load_run", lambda checkpoint: trained)
    monkeypatch.setattr(profile, "measure", lambda *arguments: result)
    assert command.main(["profile", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    # 1 G multiply-adds take 0.5 ms at 2 T per second: half of the 1 ms of the part.
    assert "50%" in text and "25%" in text
    saved = json.loads((tmp_path / "profile.json").read_text())
    assert saved["rows"] == rows and saved["size"] == [512, 640]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds", "0"], "--rounds is 0"),
        (["--size", "65", "64"], "--size 65x64: must be multiples of 32"),
        (["--checkpoint", "none"], "none"),
    ],
)
def test_errors_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["profile", *flags])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_another_network_is_refused(monkeypatch, capsys):
    other = SimpleNamespace(
        config=SimpleNamespace(model=SimpleNamespace(name="lwanet"))
    )
    monkeypatch.setattr(profile, "load_run", lambda checkpoint: other)
    with pytest.raises(SystemExit):
        command.main(["profile"])
    assert "only DMNet can be profiled" in capsys.readouterr().err


def test_every_block_of_the_encoder_has_a_resolution():
    resolutions = profile._resolutions(STAGES)
    assert len(resolutions) == 17
    assert resolutions[0] == "1/2" and resolutions[-1] == "1/32"
    assert profile._group("backbone/block16", resolutions) == "encoder, 1/32"
    assert profile._group("decoder/crp1", resolutions) == "decoder/crp1"
