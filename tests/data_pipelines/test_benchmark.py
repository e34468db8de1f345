"""The reading speed that is printed is of clips that were read."""

import pytest

from data_pipelines.benchmark import main
from data_pipelines.prepare import Request, prepare
from data_pipelines.synthetic import write_endovis17


def test_both_rates_are_printed(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_endovis17(raw, seed=0, sequences=(3,), frames=2, size=(64, 80), threads=1)
    request = Request("endovis17", task="parts", size=(32, 40))
    prepare([raw], out, request, log=lambda line: None)
    assert main(["--data", str(out), "--seconds", "0.05"]) == 0
    decoded, memory = capsys.readouterr().out.splitlines()
    assert decoded.startswith("decoded each time: ") and "32x40" in decoded
    assert memory.startswith("in memory: ") and float(memory.split()[2]) > 0


def test_frames_are_rendered(capsys):
    flags = ["--data", "rendered", "--size", "32", "40", "--threads", "1"]
    assert main([*flags, "--seconds", "0.05", "--batch-size", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("rendered: ") and line.endswith("of 32x40, 1 process")
    assert float(line.split()[1]) > 0
    assert main([*flags, "--size", "8", "40"]) == 2
    assert "at least 32 pixels per side" in capsys.readouterr().err


def test_a_folder_that_was_not_prepared_is_one_line(tmp_path, capsys):
    assert main(["--data", str(tmp_path)]) == 2
    report = capsys.readouterr().err
    assert "manifest.json: no such file" in report and report.count("\n") == 1


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "not a medical device" in " ".join(capsys.readouterr().out.split())
