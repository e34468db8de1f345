"""The files of an evaluation: scores, rows, tables and overlays."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from dmnet_jax.evaluation import Evaluation, Prediction, Scoring
from dmnet_jax.evaluation.results import (
    OVERLAYS_A_VIDEO,
    Overlays,
    tables,
    write_results,
)
from dmnet_jax.metrics import (
    PROTOCOLS,
    confusion_matrix,
    flicker,
    flicker_counts,
    frame_counts,
    normalized_surface_distance,
    summarize,
)
from tests.support.tiny_run import CLASSES, Videos, picture

LENGTHS = (5, 4)
SOURCE = Videos(LENGTHS)


def predictions():
    """(video, prediction) of every frame: the ground truth shifted by a few pixels."""
    for video, length in enumerate(LENGTHS):
        for frame in range(length):
            truth = picture(frame, seed=video)[1]
            label = np.roll(truth, video + frame, axis=1)
            similarity = -np.inf if frame == 0 else -1.5 * frame
            yield (
                video,
                Prediction(frame, label, truth, -0.25, similarity, frame % 2 == 0),
            )


ABOUT = {"fold": 2, "split_sha256": "5" * 64, "config": {"name": "x"}}


def rows_of(result):
    """The columns of an evaluation, computed by direct calls of the metrics."""
    before = {}
    for video, now in result:
        counts = frame_counts(now.label, now.truth, 3)
        surface = [math.nan] + [
            normalized_surface_distance(now.label, now.truth, c, 2) for c in (1, 2)
        ]
        flickered = np.zeros(2, np.int64)
        if video in before:
            last = before[video]
            flickered = flicker_counts(last.label, now.label, last.truth, now.truth)
        before[video] = now
        info = SOURCE.videos[video]
        yield counts, info.name, info.frames[now.frame], *now[3:], surface, flickered


@pytest.fixture(scope="module")
def evaluation():
    return evaluated()


def evaluated():
    """The evaluation of `predictions`."""
    columns = map(np.array, zip(*rows_of(predictions()), strict=True))
    confusion = sum(confusion_matrix(r.label, r.truth, 3) for _, r in predictions())
    rules = Scoring("input", "nearest", 2.0)
    return Evaluation(*columns, confusion, (64, 64), rules, "f" * 64)


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "new"
    write_results(folder, evaluation, SOURCE.classes, ABOUT)
    return folder


def strict(text):
    """Parses JSON and rejects NaN and Infinity."""

    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def test_results_hold_every_protocol_and_its_numbers(folder, evaluation):
    results = strict((folder / "results.json").read_text())
    assert results["about"] == ABOUT
    assert results["fold"] == 2 and results["split_sha256"] == "5" * 64
    assert results["weights_sha256"] == "f" * 64
    assert results["scoring"] == {
        "score_at": "input",
        "enlarge": "nearest",
        "tolerance_px": 2.0,
        "seed": 0,
    }
    assert results["size"] == [64, 64] and results["frames"] == sum(LENGTHS)
    assert results["versions"].keys() >= {"dmnet_jax", "jax", "numpy", "python"}
    assert results["classes"] == list(CLASSES)
    assert results["protocols"].keys() == PROTOCOLS.keys()
    for protocol, entry in results["protocols"].items():
        summary = summarize(evaluation.counts, protocol=protocol)
        assert entry["iou"] == summary["iou"] and entry["dice"] == summary["dice"]
        assert f"{entry['letter']}: {entry['meaning']}" == PROTOCOLS[protocol]
        low, high = entry["interval_95"]["iou"]
        assert low <= entry["iou"] <= high
        assert entry["iou_per_class"] == {
            name: summary["iou_per_class"][i] for i, name in enumerate(CLASSES) if i
        }
        for name, video in entry["videos"].items():
            counts = evaluation.counts[evaluation.videos == name]
            assert video["iou"] == summarize(counts, protocol=protocol)["iou"]
        assert entry["videos"].keys() == {"video0", "video1"}
    assert results["admitted"] == evaluation.admitted.mean()


def test_results_hold_surface_distance_flicker_and_training_time_score(
    folder, evaluation
):
    results = strict((folder / "results.json").read_text())
    surface = results["surface_distance"]
    assert surface["tolerance_px"] == 2
    second = evaluation.videos == "video1"
    for frames, entry in (
        (slice(None), surface),
        (second, surface["videos"]["video1"]),
    ):
        expected = evaluation.surface[frames][:, 1:].mean(0)
        np.testing.assert_allclose(list(entry["per_class"].values()), expected)
        np.testing.assert_allclose(entry["mean"], expected.mean())
    outputs = [r for video, r in predictions() if video == 1]
    expected = flicker([r.label for r in outputs], [r.truth for r in outputs])
    np.testing.assert_allclose(results["flicker"]["videos"]["video1"], expected)
    low, high = results["flicker"]["interval_95"]
    assert low <= results["flicker"]["share"] <= high
    inflated = results["curiosities"]["ternaus_validation"]
    assert inflated["iou"] > results["protocols"]["global"]["iou"]
    assert "inflated" in inflated["warning"]


def test_undefined_scores_are_null(tmp_path):
    """A class without a pixel, in a single video without any foreground."""
    counts = np.zeros((2, 3, 3), np.int64)
    counts[:, 0] = 64
    nothing = Evaluation(
        counts,
        np.array(["v", "v"]),
        np.array(["0", "1"]),
        np.array([-0.1, -0.2]),
        np.array([-np.inf, -3.0]),
        np.array([True, False]),
        np.full((2, 3), np.nan),
        np.zeros((2, 2), np.int64),
        np.diag([128, 0, 0]),
        (8, 8),
        Scoring(),
        "f" * 64,
    )
    write_results(tmp_path, nothing, SOURCE.classes, ABOUT)
    results = strict((tmp_path / "results.json").read_text())
    assert results["surface_distance"]["mean"] is None
    assert results["flicker"]["share"] is None
    assert results["protocols"]["isi"]["interval_95"]["iou"] == [None, None]
    assert (tmp_path / "results.md").read_text().count("n/a") > 20
    entry = strict((tmp_path / "results.json").read_text())["protocols"]["global"]
    assert entry["iou"] is None
    assert entry["videos"]["v"]["dice_per_class"] == {"shaft": None, "tip": None}


def test_rows_of_frames_add_up_to_the_counts(folder, evaluation):
    with (folder / "frames.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(LENGTHS) * 3
    columns = ("intersection", "predicted", "labelled")
    table = np.array([[int(row[name]) for name in columns] for row in rows])
    table = table.reshape(sum(LENGTHS), 3, 3)
    np.testing.assert_array_equal(table, evaluation.counts)
    np.testing.assert_array_equal(table[:, :, 2].sum(1), np.full(sum(LENGTHS), 64 * 64))
    assert [row["class"] for row in rows[:3]] == list(CLASSES)
    assert [row["video"] for row in rows[::3]] == evaluation.videos.tolist()
    assert [row["frame"] for row in rows[::3]] == evaluation.frames.tolist()
    admitted = [row["admitted"] == "1" for row in rows[::3]]
    assert admitted == evaluation.admitted.tolist()
    surface = [float(row["surface_distance"] or "nan") for row in rows]
    np.testing.assert_allclose(surface, evaluation.surface.ravel(), rtol=1e-5)
    flickered = [[int(r["flickered"]), int(r["steady"])] for r in rows[::3]]
    assert flickered == evaluation.flicker.tolist()
    assert float(rows[0]["similarity"]) == -np.inf
    assert float(rows[3]["similarity"]) == -1.5


def test_tables_name_classes_and_protocols(folder, evaluation):
    text = tables(evaluation, SOURCE.classes)
    assert (folder / "results.md").read_text() == text + "\n"
    for name in (*CLASSES[1:], *PROTOCOLS, "IoU, pixels pooled", "Dice, pixels pooled"):
        assert name in text
    for line in (
        "| A   | ternaus ",
        "| F   | global ",
        "surface distance at 2 px",
        "flicker",
        "not for reporting: ternaus_validation",
        "scored at the network's input size (64x64), logits resized by nearest",
    ):
        assert line in text


def test_overlays_of_each_video_and_a_sheet(tmp_path):
    overlays = Overlays(tmp_path / "overlays", SOURCE)
    for video, result in predictions():
        overlays(video, result)
    overlays.finish()
    files = {path.name for path in (tmp_path / "overlays").iterdir()}
    assert "sheet.png" in files
    for video, length in enumerate(LENGTHS):
        names = {name for name in files if name.startswith(f"video{video}_")}
        assert len(names) == OVERLAYS_A_VIDEO
        assert f"video{video}_f{length - 1}.png" in names
    with Image.open(tmp_path / "overlays" / "video0_f4.png") as one:
        assert one.width >= 3 * 64 and one.height >= 64
        with Image.open(tmp_path / "overlays" / "sheet.png") as sheet:
            assert sheet.height >= 2 * OVERLAYS_A_VIDEO * one.height


def test_overlays_of_best_median_and_worst_frames_and_the_timeline(tmp_path):
    overlays = Overlays(tmp_path, SOURCE)
    scores = []
    for video, result in predictions():
        overlays(video, result)
        if result.truth is not None:
            both = [
                ((result.label == c) & (result.truth == c)).sum()
                / ((result.label == c) | (result.truth == c)).sum()
                for c in range(1, len(CLASSES))
                if ((result.label == c) | (result.truth == c)).any()
            ]
            scores += [np.mean(both)] if both else []
    overlays.finish()
    picked = json.loads((tmp_path / "picked.json").read_text())
    assert picked["best"]["iou"] == pytest.approx(max(scores))
    assert picked["worst"]["iou"] == pytest.approx(min(scores))
    assert picked["median"]["iou"] == pytest.approx(sorted(scores)[len(scores) // 2])
    assert all((tmp_path / f"{name}.png").exists() for name in picked)
    lines = (tmp_path / "timeline.csv").read_text().splitlines()
    assert lines[0] == "video,frame,confidence,similarity,admitted"
    assert len(lines) == 1 + sum(LENGTHS)


def test_overlay_has_the_size_that_is_scored(tmp_path):
    overlays = Overlays(tmp_path, Videos((1,)))
    label = np.zeros((128, 160), np.uint8)
    overlays(0, Prediction(0, label, None, -0.1, -np.inf, True))
    overlays.finish()
    with Image.open(tmp_path / "video0_f0.png") as one:
        assert one.width >= 2 * 160 and one.height >= 128


def test_no_contact_sheet_without_images(tmp_path):
    Overlays(tmp_path, SOURCE).finish()
    assert not list(tmp_path.iterdir())
