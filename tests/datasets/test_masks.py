"""Unusable masks: reported before a run starts, and never scored."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from data_pipelines.prepare.__main__ import main as prepare
from data_pipelines.prepared import open_prepared
from dmnet_jax.cli.train import main as train
from dmnet_jax.config import DataConfig
from dmnet_jax.datasets import check_masks, open_split, open_videos
from dmnet_jax.evaluation.results import tables, write_results
from dmnet_jax.metrics import PROTOCOLS
from tests.cli.test_train import load
from tests.evaluation.test_results import ABOUT, SOURCE, evaluated
from tests.support.tiny_run import (
    RECIPE,
    RUN,
    picture,
    shallow,
    train_arguments,
    write_videos,
)
from tests.support.toy import use_toy_networks

COLORS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]], np.uint8)


def write(root, change=None, names=("one", "two"), classes=None):
    """Writes videos of 3 frames, with masks `change(label, frame)`."""
    write_videos(root, frames=3, names=names)
    (root / "classes.json").unlink()
    if classes:
        entries = [{"name": n, "color": c} for n, c in classes.items()]
        (root / "classes.json").write_text(json.dumps(entries))
    for name in names if change else ():
        for frame in range(3):
            label = change(picture(frame)[1], frame)
            Image.fromarray(label).save(root / name / "masks" / f"{frame}.png")
    return root


def config(root, **changes):
    values = {"num_classes": 2, "train": ("one",), "val": ("two",), **changes}
    return DataConfig(dataset="folder", root=str(root), size=(64, 64), **values)


def check(root, **changes):
    data = config(root, **changes)
    train, val = open_split(data)
    return train, check_masks(data, train, val)


def error_of(root, **changes):
    with pytest.raises(ValueError) as error:
        check(root, **changes)
    return str(error.value)


def white(label, frame):
    return np.where(label > 0, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("values", ["class", "binary"])
def test_masks_of_0_and_255_are_read_as_binary_with_a_note(tmp_path, caplog, values):
    root = write(tmp_path, white)
    train, notes = check(root, mask_values=values)
    assert not notes
    np.testing.assert_array_equal(train.label(0, 1), picture(1)[1] > 0)
    (_, _, note), *_ = caplog.record_tuples or [("", 0, "")]
    assert ("255 is read as class 1" in note and "6 masks" in note) == (
        values == "class"
    )


def test_the_meaning_of_255_depends_on_all_videos(tmp_path):
    """Unused videos count too; ambiguous masks are rejected."""
    root = write(tmp_path, white, names=("one", "two", "three"))
    label = picture(0)[1].clip(0, 1)
    Image.fromarray(label).save(root / "three" / "masks" / "0.png")
    report = error_of(root)
    for part in ("training video one", "validation video two"):
        assert f"{part}: the only foreground value of its masks is 255" in report
    assert "3 of 3 masks" in report and "--data.mask-values binary" in report
    # With more than two classes, 255 is ambiguous as well.
    Image.fromarray(white(label, 0)).save(root / "three" / "masks" / "0.png")
    assert "only foreground value of its masks is 255" in error_of(root, num_classes=3)


def test_binary_masks_may_be_rgb_or_one_bit_but_not_smoothed(tmp_path):
    def modes(label, frame):
        mask = white(label, frame)
        return [mask > 0, np.dstack([mask] * 3), mask][frame]

    root = write(tmp_path, modes)
    train, _ = check(root, mask_values="binary")
    for frame in range(3):
        np.testing.assert_array_equal(train.label(0, frame), picture(frame)[1] > 0)
    smooth = white(picture(0)[1], 0)
    smooth[3, 4] = 128
    Image.fromarray(smooth).save(root / "two" / "masks" / "1.png")
    report = error_of(root, mask_values="binary")
    assert "two/masks/1.png: mask value 128 at row 3, column 4" in report


def test_rgb_masks_are_read_by_the_colors_of_classes_json(tmp_path):
    classes = {f"c{i}": color.tolist() for i, color in enumerate(COLORS)}
    root = write(tmp_path, lambda label, _: COLORS[label], classes=classes)
    report = error_of(root, num_classes=3)
    # The report has a line for every mask of both videos, and the option to use.
    for name in ("one", "two"):
        for frame in range(3):
            assert f"{name}/masks/{frame}.png: color" in report
    assert "--data.mask-values" in report.splitlines()[-1]
    train, _ = check(root, num_classes=3, mask_values="colors")
    np.testing.assert_array_equal(train.label(0, 2), picture(2)[1])
    odd = COLORS[picture(0)[1]]
    odd[5, 6] = (1, 2, 3)
    Image.fromarray(odd).save(root / "one" / "masks" / "0.png")
    report = error_of(root, num_classes=3, mask_values="colors")
    assert "0.png: color (1, 2, 3) at row 5, column 6 is not a color" in report
    (root / "classes.json").unlink()
    report = error_of(root, num_classes=3, mask_values="colors")
    assert "classes.json: missing" in report


def test_invalid_values_and_absent_classes_are_in_one_report(tmp_path):
    root = write(tmp_path, names=("one", "two"))
    report = error_of(root)
    assert report.count("mask value 2") == 6
    assert "class 1" not in report
    report = error_of(root, num_classes=5)
    assert "no training mask has a pixel of class 3 (class_3), 4 (class_4)" in report
    assert "data.num_classes" in report and "--data.absent-classes accept" in report
    _, notes = check(root, num_classes=5, absent_classes="accept")
    assert notes == [
        "no training mask has a pixel of class 3 (class_3), 4 (class_4); it will "
        "never be predicted"
    ]
    # Faults of a mask, a class and the validation videos are in one report.
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(root / "one/masks/0.png")
    for frame in range(3):
        blank = Image.fromarray(np.zeros((64, 64), np.uint8))
        blank.save(root / "two" / "masks" / f"{frame}.png")
    report = error_of(root, num_classes=4)
    for part in ("one/masks/0.png: mask value 7", "class 3", "validation videos two"):
        assert part in report


def test_unreadable_images_are_in_the_report(tmp_path):
    root = write(tmp_path, lambda label, _: label.clip(0, 1))
    for name in ("one", "two"):
        path = root / name / "frames" / "1.png"
        path.write_bytes(path.read_bytes()[:-60])
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(root / "one/masks/1.png")
    report = error_of(root)
    for part in ("one/frames/1.png: damaged", "two/frames/1.png: damaged"):
        assert part in report
    assert "one/masks/1.png: mask value 9" in report
    deep = np.full((64, 64), 700, np.uint16)
    for frame in range(2):
        Image.fromarray(deep).save(root / "two" / "frames" / f"{frame}.png")
    report = error_of(root)
    assert report.count("16 bits per channel") == 2 and "two/frames/0.png" in report


def test_a_few_masks_with_255_only_give_a_note(tmp_path):
    def one_white(label, frame):
        return white(label, frame) if frame == 1 else label.clip(0, 1)

    _, notes = check(write(tmp_path, one_white))
    assert notes == [
        "1 of the 3 masks of one have no foreground but 255, which is not scored"
    ]


def test_black_masks_are_rejected(tmp_path):
    root = write(tmp_path, lambda label, _: np.zeros_like(label))
    report = error_of(root)
    assert "none of the 3 masks has a foreground pixel" in report


def test_train_reports_faults_before_it_creates_a_run(tmp_path, capsys):
    root = write(tmp_path / "data", white)
    Image.fromarray(picture(0)[1].clip(0, 1)).save(root / "one" / "masks" / "0.png")
    arguments = [
        *("--data.dataset", "folder", "--data.root", str(root)),
        *("--data.train", "one", "--data.val", "two", "--data.num-classes", "2"),
        *("--data.size", "64", "64", "--workdir", str(tmp_path / "runs")),
    ]
    with pytest.raises(SystemExit) as stopped:
        load("train").main(arguments)
    assert stopped.value.code == 2
    assert "--data.mask-values binary" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_masks_of_0_and_255_train_and_are_scored(tmp_path):
    root = write(tmp_path / "videos", white)
    first, last = map(RECIPE.index, ('StageConfig("first"', 'StageConfig("third"'))
    (tmp_path / "tiny.py").write_text(RECIPE[:first] + RECIPE[last:])
    more = ["--data.num-classes", "2"]
    with shallow(), use_toy_networks():  # two steps do not need optimized programs
        assert train([*train_arguments(tmp_path, "runs"), *more]) == 0
    assert root.is_dir()
    results = json.loads((tmp_path / "runs" / RUN / "results.json").read_text())
    labeled = results["protocols"]["global"]["videos"]["two"]
    assert list(labeled["iou_per_class"]) == ["class_1"]
    assert labeled["iou"] is not None


def test_prepare_rejects_ambiguous_masks_and_has_the_option(tmp_path, capsys):
    root = write(tmp_path / "raw", white)
    command = ["--dataset", "folder", "--raw", str(root)]
    assert prepare([*command, "--out", f"{tmp_path}/plain"]) == 0
    source = open_prepared(tmp_path / "plain")
    np.testing.assert_array_equal(source.label(0, 1), picture(1)[1] > 0)
    Image.fromarray(picture(0)[1].clip(0, 1)).save(root / "two" / "masks" / "0.png")
    command += ["--out", f"{tmp_path}/out"]
    assert prepare(command) == 2
    assert (
        "one: the only foreground value of its masks is 255" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
    assert prepare([*command, "--mask-values", "binary"]) == 0
    source = open_prepared(tmp_path / "out")
    np.testing.assert_array_equal(source.label(0, 1), picture(1)[1] > 0)
    # Prepared masks contain classes: a run needs no option and rejects other ones.
    assert not check(tmp_path / "out", mask_values="class")[1]
    assert "--mask-values binary" in error_of(tmp_path / "out", mask_values="colors")


def test_faults_of_unused_videos_are_ignored(tmp_path):
    root = write(tmp_path, lambda label, _: label.clip(0, 1))
    (root / "unlabeled" / "frames").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(root / "unlabeled" / "frames" / "0.png")
    (root / "empty" / "frames").mkdir(parents=True)
    (root / "__MACOSX" / "frames").mkdir(parents=True)
    assert not check(root)[1]
    assert open_videos(config(root), ["two"]).videos[0].name == "two"
    report = error_of(root, train=("one", "unlabeled"))
    assert "prepare --allow-missing" in report
    report = error_of(root, train=(), val=())
    assert "must name the videos; there are empty, one, two, unlabeled" in report


def test_the_error_for_a_missing_mask_names_the_option_for_sparse_masks(tmp_path):
    root = write(tmp_path / "raw", lambda label, _: label.clip(0, 1))
    (root / "one" / "masks" / "1.png").unlink()
    report = error_of(root)
    assert "\n" not in report and "prepare --allow-missing" in report
    command = ["--dataset", "folder", "--raw", str(root), "--out", f"{tmp_path}/out"]
    assert prepare([*command, "--allow-missing"]) == 0
    assert not check(tmp_path / "out")[1]


def test_scores_without_labeled_classes_are_undefined(tmp_path):
    whole = evaluated()
    counts, everything = whole.counts.copy(), np.ones(len(whole.counts), bool)
    # First the second video, then both, have no labeled foreground.
    for blank in (whole.videos == "video1", everything):
        counts[blank, 1:, [0]] = counts[blank, 1:, [2]] = 0
        evaluation = whole._replace(counts=counts)
        results = write_results(tmp_path, evaluation, SOURCE.classes, ABOUT)
        stored = json.loads((tmp_path / "results.json").read_text())
        assert set(stored["protocols"]) == set(PROTOCOLS)
        for protocol in stored["protocols"].values():
            video = protocol["videos"]["video1"]
            assert video["iou"] is None and video["dice"] is None
            assert set(video["iou_per_class"].values()) == {None}
            assert (protocol["iou"] is None) == bool(blank.all())
        for kind in ("surface_distance", "flicker"):
            video = stored[kind]["videos"]["video1"]
            assert (video["mean"] if isinstance(video, dict) else video) is None
    text = tables(evaluation, SOURCE.classes)
    assert "1.0000" not in text and "n/a" in text
    assert math.isnan(results["curiosities"]["ternaus_validation"]["iou"])
