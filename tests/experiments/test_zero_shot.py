"""Zero-shot scores: the meaning of mask values, and the command."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import IGNORE
from dmnet_jax.experiments import __main__ as command
from dmnet_jax.experiments.zero_shot import (
    Flags,
    _disturbed_ious,
    _ious,
    _pixel_counts,
    _predicted_parts,
    _values,
)
from tests.support import tiny_run

FLAGS = Flags("RUN", "DIR", shaft=(1,), manipulator=(2, 3))


def test_values_become_parts() -> None:
    label = np.array([[0, 1, 2, 3, 9, IGNORE]], np.uint8)
    np.testing.assert_array_equal(_values(label, FLAGS), [[0, 1, 2, 2, 0, IGNORE]])
    flags = Flags("RUN", "DIR", instrument=(9,))
    np.testing.assert_array_equal(_values(label, flags), [[0, 0, 0, 0, 3, IGNORE]])


def test_white_can_be_an_instrument_or_ignored() -> None:
    label = np.array([[0, 255, 7]], np.uint8)
    white = Flags("RUN", "DIR", instrument=(255,), ignore=(7,))
    np.testing.assert_array_equal(_values(label, white), [[0, 3, IGNORE]])


def test_one_video_can_be_scored(tmp_path_factory, tmp_path, capsys) -> None:
    folder, _ = tiny_run.trained(tmp_path_factory.getbasetemp())
    flags = ["zero-shot", "--checkpoint", str(folder / "whole" / tiny_run.RUN)]
    flags += ["--height", "64", "--root", str(folder / "videos" / "two")]
    from tests.support import toy

    with toy.use_toy_networks():
        assert command.main([*flags, "--instrument", "1", "2"]) == 0
        printed = capsys.readouterr().out
        assert [line.split()[1] for line in printed.splitlines()][2:] == ["two", "mean"]
        with pytest.raises(SystemExit):
            command.main([*flags, "--instrument", "1", "--videos", "one"])
        assert "it is itself a video, so use" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            command.main([*flags, "--instrument", "255"])
        assert "255 is both an instrument and ignored" in capsys.readouterr().err
        assert command.main([*flags, "--instrument", "255", "--ignore"]) == 0
        assert "| two   | 0.000" in capsys.readouterr().out  # there is none


def test_scores_equal_those_computed_by_hand() -> None:
    truth = np.array([[0, 1, 1, 2, IGNORE, 0]], np.uint8)
    label = np.array([[1, 1, 0, 3, 2, 0]], np.uint8)  # 2 and 3: wrist and claspers
    scores = _ious(_pixel_counts(_predicted_parts(label, shaft=1), truth), FLAGS)
    assert scores["instrument"] == pytest.approx(2 / 4)
    assert scores["shaft"] == pytest.approx(1 / 3)
    assert scores["manipulator"] == pytest.approx(1 / 1)


def test_the_command_scores_a_run(tmp_path_factory, tmp_path, capsys) -> None:
    folder, _ = tiny_run.trained(tmp_path_factory.getbasetemp())
    flags = ["--checkpoint", str(folder / "whole" / tiny_run.RUN), "--height", "64"]
    flags += ["--root", str(folder / "videos"), "--shaft", "1", "--manipulator", "2"]
    from tests.support import toy

    with toy.use_toy_networks():
        assert command.main(["zero-shot", *flags, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines()][2:] == [
        *("one", "two", "mean")
    ]
    report = json.loads((tmp_path / "zero_shot.json").read_text())
    assert {row["video"] for row in report["videos"]} == {"one", "two"}
    _check_legend(tmp_path / "one" / "best.png")
    assert all(0 <= row["instrument"] <= 1 for row in report["videos"])


def _check_legend(path) -> None:
    """The legend has a swatch of each part, and none of the 254 mask values."""
    with Image.open(path) as file:
        picture = np.asarray(file.convert("RGB"))
    for color in ((230, 159, 0), (0, 158, 115), (86, 180, 233)):
        assert (picture == color).all(-1).sum() > 50


def test_disturbed_frames_and_the_single_frame(tmp_path_factory, tmp_path, capsys):
    folder, _ = tiny_run.trained(tmp_path_factory.getbasetemp())
    flags = ["zero-shot", "--checkpoint", str(folder / "whole" / tiny_run.RUN)]
    flags += ["--height", "64", "--shaft", "1", "--manipulator", "2", "--bursts", "1"]
    from tests.support import toy

    short, root = str(folder / "videos"), tmp_path / "videos"
    tiny_run.write_videos(root, frames=40, names=("one",))
    with toy.use_toy_networks():
        with pytest.raises(SystemExit) as stopped:
            command.main([*flags, "--root", short])
        assert stopped.value.code == 2
        assert "no burst fits into 6 frames" in capsys.readouterr().err
        for more in ([], ["--no-memory"]):
            arguments = [*flags, "--root", str(root), "--out", str(tmp_path / "out")]
            assert command.main([*arguments, *more]) == 0
    row = json.loads((tmp_path / "out" / "zero_shot.json").read_text())["videos"][0]
    assert {"disturbed", "unseen kinds"} < set(row)
    assert all(0 <= row[name] <= 1 for name in ("instrument", "disturbed"))


def test_disturbed_frames_are_pooled_over_kinds() -> None:
    def counts(overlap: int, predicted: int, actual: int) -> np.ndarray:
        return np.array([[overlap, predicted, actual]] * 3)

    ious = _disturbed_ious({"black": counts(1, 2, 3), "smoke": counts(4, 5, 6)})
    assert ious["disturbed"] == pytest.approx(5 / (7 + 9 - 5))
    assert ious["unseen kinds"] == pytest.approx(4 / (5 + 6 - 4))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "must be an experiment: few-labels, hidden-tips"),
        (["zero-shot"], "--root DIR is missing"),
        (
            ["zero-shot", "--checkpoint", "x", "--root", "y"],
            "the mask values of instruments are missing",
        ),
        (
            ["zero-shot", "--checkpoint", "x", "--root", "y", "--height", "50"],
            "--height is 50; it must be a multiple of 32",
        ),
    ],
)
def test_errors_are_one_line(flags, message, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(flags)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
