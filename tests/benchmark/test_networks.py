"""The benchmark of networks: turns, ratios and errors; nothing is timed."""

import json

import pytest

from dmnet_jax.benchmark import __main__ as command
from dmnet_jax.benchmark import networks
from dmnet_jax.benchmark.networks import Contestant
from dmnet_jax.streaming import Session
from tests.support import tiny_run


def contestant(name):
    return Contestant(name, Session(tiny_run.program((64, 64))), 1.5)


def test_networks_take_turns_in_alternating_order(monkeypatch):
    order = []
    step = Session.step

    def record(session, frame):
        result = step(session, frame)
        assert result.status == "ok"
        order.append(names[id(session)])
        return result

    both = [contestant("a"), contestant("b")]
    names = {id(c.session): c.name for c in both}
    monkeypatch.setattr(Session, "step", record)
    networks.measure(both, rounds=2, steps=3)
    warm = networks.WARM
    assert order == ["a"] * warm + ["b"] * warm + [*"aaabbb", *"bbbaaa"]
    assert [len(turn) for c in both for turn in c.turns] == [3, 3, 3, 3]


def test_ratios_are_of_medians_of_the_same_round():
    first, other = contestant("first"), contestant("other")
    first.turns = [[0.1, 0.1, 9.0], [0.2, 0.2, 0.2]]
    other.turns = [[0.05, 0.05, 0.05], [0.1, 0.1, 9.0]]
    result = networks.row(other, first)
    assert result["ratios"] == pytest.approx([2, 2])
    assert result["p50_ms"] == pytest.approx(75) and result["steps"] == 6
    mean = (3 * 0.05 + 2 * 0.1 + 9) / 6
    assert result["frames_per_second"] == pytest.approx(1 / mean)


def test_the_command_writes_a_table(monkeypatch, tmp_path, capsys):
    def load(name, size):
        assert size == (64, 96)
        return contestant(name)

    monkeypatch.setattr(networks, "load", load)
    flags = ["networks", "--checkpoints", "a", "b", "--size", "64", "96"]
    flags += ["--rounds", "1", "--steps", "1", "--out", str(tmp_path)]
    assert command.main(flags) == 0
    text = capsys.readouterr().out
    assert "| a " in text and "| b " in text and "1.00 [1.00..1.00]" in text
    assert (tmp_path / "networks.md").read_text() in text + "\n"
    rows = json.loads((tmp_path / "networks.json").read_text())["rows"]
    assert [row["checkpoint"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds", "0"], "need at least 1"),
        (["--size", "65", "64"], "--size 65x64: must be multiples of 32"),
        (["--checkpoints", "none.xml"], "none.xml"),
        (["--checkpoints", "none"], "none"),
    ],
)
def test_errors_are_one_line(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["networks", *flags])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
