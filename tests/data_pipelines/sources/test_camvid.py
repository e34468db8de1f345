"""CamVid: eleven classes, the official division, videos without gaps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import IGNORE, DataError
from data_pipelines.sources import Request
from data_pipelines.sources.camvid import CLASSES, DATASET, open_camvid

NUMBERS = {
    ("train", "0001TP"): (30, 60, 90, 150, 180),
    ("train", "Seq05VD"): (10, 40),
    ("val", "0001TP"): (100, 102, 104),
}


@pytest.fixture
def root(tmp_path):
    for (split, sequence), numbers in NUMBERS.items():
        for number in numbers:
            name = f"{sequence}_{'f' * (sequence[0] == 'S')}{number:05d}"
            for kind in ("frames", "masks"):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            picture = np.full((6, 8, 3), number, np.uint8)
            Image.fromarray(picture).save(tmp_path / split / "frames" / f"{name}.jpg")
            mask = np.arange(48, dtype=np.uint8).reshape(6, 8) % 12
            Image.fromarray(mask).save(tmp_path / split / "masks" / f"{name}.png")
    return tmp_path


def test_a_video_is_a_run_of_one_drive_without_a_gap(root):
    source = open_camvid(root)
    assert [(video.name, len(video.frames)) for video in source.videos] == [
        ("train_0001TP_00030", 3),
        ("train_0001TP_00150", 2),
        ("train_Seq05VD_f00010", 2),
        ("val_0001TP_00100", 3),
    ]
    assert abs(int(source.image(1, 1).mean()) - 180) <= 1
    names = [video.name for video in source.videos]
    assert DATASET.names(root, Request("camvid")) == names
    official = DATASET.divisions(names)["official"]
    assert len(official.train) == 3 and official.val == ("val_0001TP_00100",)


def test_all_eleven_classes_are_scored_and_unlabeled_is_not(root):
    source = open_camvid(root)
    label = source.label(0, 0)
    assert label.ravel()[:12].tolist() == [*range(1, 12), IGNORE]
    assert len(CLASSES) == 12 and (CLASSES[1].name, CLASSES[11].name) == (
        "sky",
        "bicyclist",
    )
    assert len({info.color for info in CLASSES}) == 12


def test_faults_are_named(root):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_camvid(root / "none")
    with pytest.raises(DataError, match="no folders train/frames"):
        open_camvid(root / "train")
    path = root / "val/masks/0001TP_00102.png"
    path.rename(path.with_name("odd.png"))
    path = root / "val/frames/0001TP_00104.jpg"
    path.rename(path.with_name("odd.jpg"))
    with pytest.raises(DataError) as error:
        open_camvid(root)
    for part in (
        "00102.jpg: frame without",
        "00104.png: mask without",
        "odd.jpg: the name must",
    ):
        assert part in str(error.value)


def test_real_videos_are_the_published_ones():
    root = Path(__file__).parents[4] / "shared" / "data" / "camvid"
    if not root.is_dir():
        pytest.skip("CamVid is not at ../shared/data/camvid")
    source = open_camvid(root)
    frames = {video.name: len(video.frames) for video in source.videos}
    assert sum(n for name, n in frames.items() if name.startswith("train_")) == 367
    assert frames["val_0016E5_07959"] == 101
    assert source.image(0, 0).shape == (360, 480, 3)
