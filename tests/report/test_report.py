"""The page of a run: complete, self-contained, and explicit about missing data."""

import json
import math
import os
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from dmnet_jax.evaluation.results import Overlays, write_results
from dmnet_jax.report import speed
from dmnet_jax.report.__main__ import main
from dmnet_jax.report.charts import Line, bars, chart, ticks
from tests.evaluation.test_results import SOURCE, evaluated, predictions
from tests.support.tiny_run import CLASSES, tiny_config


@pytest.fixture
def run(tmp_path):
    """A finished run whose name and videos would break careless HTML."""
    from dmnet_jax.config import to_json

    (tmp_path / "config.json").write_text(to_json(tiny_config()))
    lines = [{"step": n, "stage": "<first>", "loss": 1 / n} for n in range(1, 60)]
    lines.append({"step": 59, "val_iou": 0.5})
    lines.append({"step": 60, "stage": "second", "loss": None, "grad_norm": 3.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    about = {"train_videos": ["<script>"], "devices": ["cpu"]}
    values = evaluated()._replace(
        thresholds={"min_confidence": -0.1, "max_similarity": -4.0}
    )
    write_results(tmp_path, values, SOURCE.classes, about)
    overlays = Overlays(tmp_path / "overlays", SOURCE)
    for video, result in predictions():
        overlays(video, result)
    overlays.finish()
    return tmp_path


def page_of(run, *arguments):
    assert main([str(run), "--no-speed", *arguments]) == 0
    return (run / "report.html").read_text()


def test_page_is_complete_and_self_contained(run, capsys):
    page = page_of(run)
    assert str(run / "report.html") in capsys.readouterr().out
    for title in ("Training", "Scores", "By class and video", "Confusion", "Speed"):
        assert f"<h2>{title}</h2>" in page
    for text in (*CLASSES, "ternaus", "global", "best:", "worst:", "α -0.1", "β -4"):
        assert text in page
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "evaluate.py again" not in page
    addresses = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">)]*)', page)
    assert addresses and all(a.startswith("data:") for a in addresses)


def test_charts_are_well_formed(run):
    figures = re.findall(r"<svg.*?</svg>", page_of(run), re.S)
    assert len(figures) >= 9
    for figure in figures:
        quoted = re.sub(r"(?<=\w)=([\w.-]+)(?=[\s>/])", r'="\1"', figure)
        ET.fromstring(quoted)
        assert "nan" not in quoted.lower()


def test_missing_data_of_older_runs_is_reported(run):
    for file in (run / "overlays").iterdir():
        file.unlink()
    results = json.loads((run / "results.json").read_text())
    for name in ("confusion", "thresholds", "surface_distance", "flicker"):
        del results[name]
    (run / "results.json").write_text(json.dumps(results))
    (run / "metrics.jsonl").unlink()
    assert page_of(run).count("evaluate.py again") == 3


def test_newer_evaluation_is_reported(run):
    (run / "evaluation").mkdir()
    for name in ("results.json", "frames.csv"):
        (run / name).rename(run / "evaluation" / name)
    assert f"{run / 'evaluation'}" in page_of(run)


def test_speed_is_reported_with_its_machine(run, monkeypatch):
    latency = {"steps": 60, "p50_ms": 20.0, "p95_ms": 21.0, "p99_ms": 22, "max_ms": 23}
    machine = {"cpu": "a processor", "cores": 2, "date": "today"}
    result = {"latency": latency, "size": [64, 64], "device": "cpu"}
    monkeypatch.setattr(speed, "measure", lambda run: {**result, "machine": machine})
    assert main([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "50.0" in page and "2 cores of a processor, today" in page


@pytest.mark.parametrize(
    ("damage", "error_line"),
    [
        (lambda run: (run / "config.json").unlink(), "no config.json"),
        (lambda run: (run / "results.json").unlink(), "no results yet"),
        (lambda run: (run / "results.json").write_text("{"), "results.json: damaged"),
        (lambda run: (run / "frames.csv").write_text("a,b\n1,2"), "frames.csv"),
    ],
)
def test_unreadable_files_are_one_error_line(run, damage, error_line, capsys):
    damage(run)
    with pytest.raises(SystemExit) as stop:
        main([str(run), "--no-speed"])
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and error_line in message and "\n" not in message


def error_line(run, capsys):
    """The error line of a refused report; None if a page was written."""
    try:
        main([str(run), "--no-speed"])
    except SystemExit as stop:
        assert stop.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and "\x1b" not in line
        return line
    return None


FILES = (
    "results.json",
    "frames.csv",
    "config.json",
    "metrics.jsonl",
    "overlays/timeline.csv",
    "overlays/picked.json",
)


@pytest.mark.parametrize("name", FILES)
def test_random_edits_of_a_run_are_one_error_line_that_names_the_file(
    run, name, capsys
):
    rng = np.random.default_rng(FILES.index(name))
    path = run / name
    whole = path.read_text()
    cells = re.split(r"([,\n:\[\]{}]+)", whole)
    odd = ["", "x", "-1", "1e999", "null", "[]", "{}", '"', "nan", "9" * 400, "\x1b[2J"]
    odd += ["true", "-0.5", "\x00", '"../../x"', "[" * 3000]
    refused = 0
    for number in range(50):
        text = list(cells)
        if number % 3 == 0:
            text = text[: rng.integers(len(text))]
        for _ in range(rng.integers(1, 3)):
            if text:
                text[rng.integers(len(text))] = odd[rng.integers(len(odd))]
        path.write_text("".join(text))
        line = error_line(run, capsys)
        refused += line is not None
        assert line is None or name in line, line
    assert refused > 20


def test_picked_cannot_name_another_image(run, capsys):
    outside = run.parent / "secret.png"
    (run / "overlays" / "best.png").rename(outside)
    path = run / "overlays" / "picked.json"
    picked = json.loads(path.read_text())
    path.write_text(json.dumps({"../../../secret": picked["best"]}))
    assert "picked.json: damaged or edited" in error_line(run, capsys)
    path.write_text(json.dumps(picked))
    (run / "overlays" / "best.png").symlink_to(outside)
    assert "best.png is a link to a file outside the run" in error_line(run, capsys)
    outside.unlink()
    assert error_line(run, capsys) is None


def test_a_damaged_picture_is_named(run, capsys):
    path = run / "overlays" / "worst.png"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(30):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 400), 6):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if number % 3 == 0 else data)
        line = error_line(run, capsys)
        assert line is None or "worst.png: damaged" in line
    path.write_bytes(b"")
    assert "worst.png: damaged" in error_line(run, capsys)


def test_report_of_a_network_without_memory_does_not_mention_memory(run):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "thresholds": {}}))
    page = page_of(run)
    assert "<b>n/a</b><span class=soft>remembered" in page
    assert "This network has no global memory" in page


def test_scores_without_support_are_shown_as_absent(run):
    result = evaluated()
    counts = result.counts.copy()
    counts[:, 1:, [0]] = counts[:, 1:, [2]] = 0
    write_results(run, result._replace(counts=counts), SOURCE.classes, {})
    (run / "overlays" / "picked.json").unlink()
    page = page_of(run)
    assert "<b>n/a</b><span class=soft>mean IoU, pixels pooled" in page
    assert "1.000" not in page


def test_ticks_are_round():
    assert ticks(-0.02, 1.05) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-64, -20) == [-60, -50, -40, -30, -20]
    assert all(math.isclose(t * 10, round(t * 10)) for t in ticks(0.1, 0.9))
    np.testing.assert_allclose(ticks(-0.1, 0), np.arange(-5, 1) / 50)


@pytest.mark.parametrize("ends", [(-0.1, 0.0), (-4.71, -2.2), (0, 224)])
def test_ticks_are_few_and_within(ends):
    result = ticks(*ends)
    assert 2 <= len(result) <= 11
    assert all(ends[0] <= tick <= ends[1] for tick in result)


def test_charts_of_few_values():
    assert "no data" in chart([Line([0], [math.nan])], title="empty")
    assert "<circle" in chart([Line([3], [2.0], "dots")], title="one")
    assert "n/a" in bars([("a", math.nan, None)], title="undefined")


@pytest.mark.parametrize("name", ["frames.csv", "metrics.jsonl", "config.json"])
def test_named_pipe_in_a_run_is_refused_without_blocking(run, name, capsys):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    assert name in error_line(run, capsys)
