"""Zero-shot scores: which values count as what, and the command from end to end."""

import json

import numpy as np
import pytest

from data_pipelines.frames import IGNORE
from dmnet_jax.experiments import __main__ as command
from dmnet_jax.experiments.zero_shot import Flags, _counted, _ious, _values
from tests.support import tiny_run

FLAGS = Flags("RUN", "DIR", shaft=(1,), manipulator=(2, 3))


def test_values_become_parts() -> None:
    label = np.array([[0, 1, 2, 3, 9, IGNORE]], np.uint8)
    np.testing.assert_array_equal(_values(label, FLAGS), [[0, 1, 2, 2, 0, IGNORE]])
    whole = Flags("RUN", "DIR", instrument=(9,))
    np.testing.assert_array_equal(_values(label, whole), [[0, 0, 0, 0, 3, IGNORE]])


def test_scores_against_a_count_by_hand() -> None:
    truth = np.array([[0, 1, 1, 2, IGNORE, 0]], np.uint8)
    label = np.array([[1, 1, 0, 3, 2, 0]], np.uint8)  # 2 and 3: wrist and claspers
    scores = _ious(_counted(label, truth, shaft=1), FLAGS)
    assert scores["instrument"] == pytest.approx(2 / 4)
    assert scores["shaft"] == pytest.approx(1 / 3)
    assert scores["manipulator"] == pytest.approx(1 / 1)


def test_the_command_scores_a_run(tmp_path_factory, tmp_path, capsys) -> None:
    folder, _ = tiny_run.trained(tmp_path_factory.getbasetemp())
    flags = ["--checkpoint", str(folder / "whole" / tiny_run.RUN), "--height", "64"]
    flags += ["--root", str(folder / "videos"), "--shaft", "1", "--manipulator", "2"]
    from tests.support import toy

    with toy.everywhere():
        assert command.main(["zero-shot", *flags, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines()][2:] == [
        *("one", "two", "mean")
    ]
    report = json.loads((tmp_path / "zero_shot.json").read_text())
    assert {row["video"] for row in report["videos"]} == {"one", "two"}
    assert all(0 <= row["instrument"] <= 1 for row in report["videos"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name an experiment first: memory-value, zero-shot"),
        (["zero-shot"], "--root DIR is missing"),
        (
            ["zero-shot", "--checkpoint", "x", "--root", "y"],
            "say which mask values are instruments",
        ),
        (
            ["zero-shot", "--checkpoint", "x", "--root", "y", "--height", "50"],
            "--height is 50; use a multiple of 32",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(flags, message, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(flags)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
