import math

import numpy as np
import pytest

from dmnet_jax.metrics import (
    bootstrap,
    format_table,
    frame_counts,
    per_class,
    per_video,
    summarize,
)

CLASSES = 4


def two_videos(seed=0, frames=12):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (frames, 12, 12))
    hit = np.linspace(0.2, 0.9, frames)[:, None, None]
    predictions = np.where(rng.random(labels.shape) < hit, labels, 0)
    pairs = zip(predictions, labels, strict=True)
    counts = np.stack([frame_counts(p, g, CLASSES) for p, g in pairs])
    return counts, ["b"] * (frames // 2) + ["a"] * (frames // 2)


def test_per_video_and_per_class_are_summaries_of_parts():
    counts, names = two_videos()
    by_video = per_video(counts, names, protocol="challenge")
    assert list(by_video) == ["b", "a"]
    expected = summarize(counts[6:], protocol="challenge")
    assert by_video["a"]["iou"] == expected["iou"] > by_video["b"]["iou"]
    classes = ["background", "shaft", "wrist", "jaws"]
    rows, headers = per_class(
        counts, names, classes, protocol="challenge", score="dice"
    )
    assert headers == ["class", "b", "a", "all videos"]
    assert [row[0] for row in rows] == ["shaft", "wrist", "jaws", "mean"]
    assert rows[1][2] == expected["dice_per_class"][2]
    assert rows[3][1:3] == [by_video["b"]["dice"], expected["dice"]]
    assert rows[3][3] == summarize(counts, protocol="challenge")["dice"]
    with pytest.raises(ValueError, match="2 names for 4 classes"):
        per_class(counts, names, classes[:2], protocol="isi")


def test_bootstrap_resamples_videos():
    counts, _ = two_videos(frames=24)
    names = np.repeat(np.arange(6), 4)
    first = bootstrap(counts, names, protocol="isi", seed=1, repeats=200)
    assert first == bootstrap(counts, names, protocol="isi", seed=1, repeats=200)
    assert first != bootstrap(counts, names, protocol="isi", seed=2, repeats=200)
    low, high = first["iou"]
    of_video = [s["iou"] for s in per_video(counts, names, protocol="isi").values()]
    assert min(of_video) <= low < np.mean(of_video) < high <= max(of_video)
    narrow = bootstrap(
        counts, names, protocol="isi", seed=1, repeats=200, confidence=0.5
    )
    assert low < narrow["iou"][0] < narrow["iou"][1] < high
    # Equal frames in the other videos: their number is what makes an interval narrow.
    many = bootstrap(
        np.tile(counts, (4, 1, 1)),
        np.concatenate([names + 6 * i for i in range(4)]),
        protocol="isi",
        seed=1,
        repeats=200,
    )
    assert many["iou"][1] - many["iou"][0] < 0.75 * (high - low)
    assert np.isnan(bootstrap(counts, [0] * 24, protocol="isi", seed=1)["iou"]).all()


def test_table_is_markdown_and_aligned():
    text = format_table(
        [["shaft", 0.51234, 10], ["a|b", math.nan, 7]], ["class", "IoU", "frames"]
    )
    assert text.splitlines() == [
        "| class |    IoU | frames |",
        "| ----- | -----: | -----: |",
        "| shaft | 0.5123 |     10 |",
        "| a\\|b  |    n/a |      7 |",
    ]
    assert format_table([], ["class"]).count("\n") == 1
    with pytest.raises(ValueError, match="row 0 has 1 cells"):
        format_table([["x"]], ["a", "b"])


def test_mistakes_are_reported():
    counts, names = two_videos()
    with pytest.raises(ValueError, match="one video per frame"):
        per_video(counts, names[1:], protocol="isi")
    with pytest.raises(ValueError, match="repeats"):
        bootstrap(counts, names, protocol="isi", seed=0, repeats=0)
    with pytest.raises(ValueError, match="unknown protocol"):
        bootstrap(counts, names, protocol="best", seed=0)
