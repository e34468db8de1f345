"""Summaries of scored frames: groups, recovery, tables and files."""

import csv
import json

import numpy as np
import pytest

from dmnet_jax.evaluation.bursts.benchmark import NETWORK, SHUFFLED, Scored
from dmnet_jax.evaluation.bursts.report import tables, write
from dmnet_jax.evaluation.bursts.summary import frame_iou, summarized
from tests.support.tiny_run import Videos


def counts(iou, pixels=100):
    """A frame whose one foreground class has an IoU."""
    both = round(iou * pixels)
    return np.array([[50, 50, 50], [both, both, pixels], [0, 0, 0]])


def one(iou, frame, *, row=NETWORK, run=1, burst=0, kind="", severity=0, position=0):
    return Scored(row, run, 0, frame, burst, kind, severity, position, counts(iou))


def video():
    """Ten frames: a burst of two with an after-effect, and one of one at the end."""
    clean = [one(0.9, frame, run=0) for frame in range(10)]
    pass_ = [
        one(0.9, 0),
        one(0.2, 1, burst=1, kind="smoke", severity=2, position=1),
        one(0.4, 2, burst=1, kind="smoke", severity=2, position=2),
        one(0.5, 3, burst=1),
        one(0.87, 4, burst=1),
        one(0.88, 5, burst=1),
        one(0.1, 6, burst=1),
        one(0.6, 7, burst=2, kind="black", position=1),
        one(0.3, 8, burst=2),
        one(0.5, 9, burst=2),
    ]
    return clean + pass_


def test_frames_are_pooled_by_group():
    row = summarized(video())[NETWORK]
    assert row["corrupted"] == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert row["corrupted_if_clean"] == pytest.approx(0.9)
    assert row["trained_kinds"] == row["by_kind"]["black"] == pytest.approx(0.6)
    assert row["unseen_kinds"] == row["by_kind"]["smoke"] == pytest.approx(0.3)
    assert np.isnan(row["by_kind"]["blood"])
    assert row["by_severity"]["2"] == pytest.approx(0.3)
    assert np.isnan(row["by_severity"]["1"])
    assert row["by_position"]["1"] == pytest.approx(0.4)
    assert row["by_position"]["2-3"] == pytest.approx(0.4)
    assert np.isnan(row["by_position"]["7-12"])
    # Not the frame before the first burst.
    after = (0.5 + 0.87 + 0.88 + 0.1 + 0.3 + 0.5) / 6
    assert row["clean_between"] == pytest.approx(after)
    assert row["clean_between_if_clean"] == row["clean_video"] == pytest.approx(0.9)
    assert row["frames"] == 3


def test_recovery_counts_frames_until_two_points_below_the_clean_run():
    row = summarized(video())[NETWORK]
    # Two frames after the first burst; all (two) frames after the second.
    assert row["recovery_frames"] == pytest.approx(2)
    assert row["bursts_not_recovered"] == 1
    at_once = [s for s in video() if s.run == 0 or s.frame <= 2]
    at_once += [one(0.9, 3, burst=1)]
    row = summarized(at_once)[NETWORK]
    assert row["recovery_frames"] == row["bursts_not_recovered"] == 0


def test_empty_frame_predicted_empty_is_correct():
    assert frame_iou(np.array([[9, 9, 9], [0, 0, 0]])) == 1
    assert frame_iou(np.array([[8, 8, 9], [0, 1, 0]])) == 0
    assert frame_iou(counts(0.3)) == pytest.approx(0.3)


def rows():
    wrong = [s._replace(row=SHUFFLED) for s in video() if s.position]
    averages = [
        s._replace(row=f"average {w}", counts=counts(iou))
        for w, iou in ((0.4, 0.5), (0.6, 0.7), (0.8, 0.6))
        for s in video()
    ]
    return [*video(), *wrong, *averages]


def test_best_average_is_named_and_wrong_memories_score_corrupted_frames_only():
    result = summarized(rows())
    assert list(result)[0] == NETWORK
    best = result["exponential average"]
    assert best["best"] == "average 0.6" and best["corrupted"] == pytest.approx(0.7)
    assert "clean_video" not in result[SHUFFLED]
    assert result[SHUFFLED]["corrupted"] == result[NETWORK]["corrupted"]
    text = tables(result)
    assert "| exponential average (average 0.6) |" in text
    assert "| average 0.4" not in text
    assert text.count(f"| {SHUFFLED}") == 3


def test_files_hold_every_frame(tmp_path):
    scored = rows()
    write(tmp_path, scored, summarized(scored), Videos((10,)), {"bursts": {"seed": 3}})
    report = json.loads((tmp_path / "bursts.json").read_text())
    assert report["bursts"]["seed"] == 3
    assert report["rows"][NETWORK]["by_kind"]["blood"] is None
    assert report["rows"]["average 0.8"]["corrupted"] == pytest.approx(0.6)
    assert (tmp_path / "bursts.md").read_text() == tables(summarized(scored)) + "\n"
    with (tmp_path / "bursts.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(scored)
    line = lines[3 * 11 + 1]
    assert line == {
        "row": NETWORK,
        "pass": "1",
        "video": "video0",
        "frame": "f1",
        "burst": "1",
        "kind": "smoke",
        "severity": "2",
        "position": "1",
        "class": "shaft",
        "intersection": "20",
        "predicted": "20",
        "labelled": "100",
    }
