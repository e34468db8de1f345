"""The records of a run across resumes, and the progress line."""

import io
import json
import re

import pytest

from dmnet_jax.training.run_log import RunLog


def parse_json(text):
    """Parses JSON that must not contain NaN or infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


def open_log(folder, step, scored=True):
    stream = io.StringIO()
    return RunLog(folder, step=step, scored=scored, total_steps=10, stream=stream)


def test_a_resumed_log_drops_the_records_of_repeated_steps(tmp_path):
    log = open_log(tmp_path, 0)
    for step in (1, 2, 3, 4):
        log.record(step, loss=step / 2)
    log.record(3, val_iou=0.5)
    log.close()
    path = tmp_path / "metrics.jsonl"
    # A line that a kill cut short.
    path.write_text(path.read_text() + '{"step": 2, "lo')
    log = open_log(tmp_path, 2)
    log.record(3, loss=7.0)
    log.close()
    assert [parse_json(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1.0},
        {"step": 3, "loss": 7.0},
    ]


def test_records_are_written_immediately_and_without_nan(tmp_path):
    log = open_log(tmp_path, 0)
    log.record(1, loss=float("nan"), grad_norm=float("inf"), stage="all")
    text = (tmp_path / "metrics.jsonl").read_text()
    assert parse_json(text) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
        "stage": "all",
    }
    log.close()


def test_progress_shows_steps_and_remaining_time(tmp_path, monkeypatch):
    now = iter([100.0, 130.0])
    monkeypatch.setattr("dmnet_jax.training.run_log.time.monotonic", lambda: next(now))
    stream = io.StringIO()
    log = RunLog(tmp_path, step=4, total_steps=10, stream=stream)
    log.progress(6, "all · loss 0.5")
    log.close()
    # Two steps in 30 s; four are left.
    assert stream.getvalue() == "step 6/10 · all · loss 0.5 · 1:00 left\n"


@pytest.mark.parametrize("scored", [True, False])
def test_a_validation_that_is_due_is_recorded_once(tmp_path, scored):
    log = open_log(tmp_path, 0)
    log.record(1, val_iou=0.1)
    log.record(2, loss=1.0)
    log.record(2, val_iou=0.5)
    log.close()
    open_log(tmp_path, 2, scored).close()
    records = [
        parse_json(line)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert records[:2] == [{"step": 1, "val_iou": 0.1}, {"step": 2, "loss": 1.0}]
    assert records[2:] == [{"step": 2, "val_iou": 0.5}] * scored


def test_records_survive_a_kill_while_they_are_filtered(tmp_path, monkeypatch):
    log = open_log(tmp_path, 0)
    log.record(1, loss=1.0)
    log.close()
    path = tmp_path / "metrics.jsonl"
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dmnet_jax.training.run_log.os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        open_log(tmp_path, 1)
    assert path.read_bytes() == before


def test_the_error_names_a_line_that_is_not_a_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=re.escape(f"{path}: line 2 is not a record")):
        open_log(tmp_path, 1)
