"""Videos of a data configuration, and one-line errors for invalid ones."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.prepare import Request, prepare
from data_pipelines.sources import endovis15
from data_pipelines.sources.endovis18 import SEQUENCES
from data_pipelines.synthetic import write_endovis17
from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
)
from dmnet_jax.datasets import open_dataset, open_split, open_videos, split_names
from dmnet_jax.training.stages import build_stages
from tests.support.tiny_run import CLASSES, picture, write_videos

SYNTHETIC = SyntheticConfig(sequences=(1, 2, 3), frames=2, size=(64, 80))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_videos(tmp_path_factory.mktemp("folder"), names=("b", "a", "c"))
    return DataConfig(
        dataset="folder",
        root=str(root),
        size=(32, 64),
        train=("c", "a"),
        val=("b",),
        num_classes=3,
    )


@pytest.fixture(scope="module")
def endovis17(tmp_path_factory):
    root = tmp_path_factory.mktemp("endovis17")
    write_endovis17(root, seed=0, sequences=(1, 2, 3), frames=2, size=(64, 80))
    return DataConfig(
        dataset="endovis17", root=str(root), size=(64, 96), task="parts", num_classes=4
    )


def names(source):
    return [video.name for video in source.videos]


def error_of(call, *arguments):
    """Makes a call that fails; returns its one-line error."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        call(*arguments)
    message = str(error.value)
    assert message and "\n" not in message
    return message


def test_images_have_the_networks_size_and_labels_the_stored_size(folder):
    train, val = open_split(folder)
    assert names(train) == ["c", "a"] and names(val) == ["b"]
    assert [info.name for info in train.classes] == list(CLASSES)
    assert train.image(0, 1).shape == (32, 64, 3)
    # Videos were written in the order b, a, c.
    np.testing.assert_array_equal(train.label(0, 1), picture(1, seed=2)[1])
    np.testing.assert_array_equal(val.label(0, 5), picture(5, seed=0)[1])


def test_endovis15_reads_the_masks_called_parts(tmp_path):
    for number, clip in enumerate(("clip1", "clip2", "clip3")):
        for kind in ("frames", "parts"):
            (tmp_path / clip / kind).mkdir(parents=True)
        image, label = picture(number)
        Image.fromarray(image).save(tmp_path / clip / "frames" / "0.png")
        Image.fromarray(label).save(tmp_path / clip / "parts" / "0.png")
    data = DataConfig(
        dataset="endovis15",
        root=str(tmp_path),
        size=(64, 64),
        train=("clip1", "clip2"),
        val=("clip3",),
        num_classes=3,
    )
    train, val = open_split(data)
    assert names(train) == ["clip1", "clip2"] and names(val) == ["clip3"]
    assert val.classes == endovis15.CLASSES
    np.testing.assert_array_equal(val.label(0, 0), picture(2)[1])


def test_endovis17_is_split_by_its_folds(endovis17):
    data = replace(endovis17, dataset="synthetic", synthetic=SYNTHETIC)
    train, val = open_split(data)
    assert names(val) == ["instrument_dataset_1", "instrument_dataset_3"]
    assert names(train) == ["instrument_dataset_2"]
    assert val.image(0, 1).shape == (64, 96, 3)
    assert val.label(0, 1).shape == (64, 80)
    # Names of videos take precedence over the fold.
    chosen = replace(endovis17, train=(names(val)[0],), val=(names(train)[0],))
    assert [names(source) for source in open_split(chosen)] == [
        ["instrument_dataset_1"],
        ["instrument_dataset_2"],
    ]


def test_synthetic_video_is_rendered_once_and_reproducible(endovis17, tmp_path):
    data = replace(
        endovis17, dataset="synthetic", root=str(tmp_path), synthetic=SYNTHETIC
    )
    first = open_dataset(data)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    assert files and names(first) == [f"instrument_dataset_{k}" for k in (1, 2, 3)]
    again = open_dataset(data)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")} == files
    for read in (first, again):
        original = open_dataset(endovis17)
        np.testing.assert_array_equal(read.image(2, 1), original.image(2, 1))
        np.testing.assert_array_equal(read.label(2, 1), original.label(2, 1))


def test_synthetic_video_has_the_frame_rate_of_the_config(endovis17, tmp_path):
    def rendered(rate):
        synthetic = replace(SYNTHETIC, sequences=(1,), frames=3, rate=rate)
        root = str(tmp_path / str(rate))
        data = replace(endovis17, dataset="synthetic", root=root, synthetic=synthetic)
        return open_dataset(data)

    slow, fast = rendered(2.0), rendered(4.0)
    np.testing.assert_array_equal(slow.label(0, 1), fast.label(0, 2))


def test_named_videos_are_opened_in_the_given_order(folder):
    assert names(open_videos(folder, ["b", "c"])) == ["b", "c"]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"num_classes": 4}, ("data.num_classes is 4", "3: background, shaft, tip")),
        ({"root": ""}, ("data.root is not set", "--data.root DIR")),
        ({"root": "/none/there"}, ("/none/there", "no such folder")),
        ({"train": ("c", "x")}, ("no video 'x'", "a, b, c")),
        ({"train": ("c", "c")}, ("'c' is selected twice",)),
        ({"train": (), "val": ()}, ("data.train and data.val", "a, b, c")),
        ({"masks": "parts"}, ("no folder 'parts'", "masks")),
    ],
)
def test_errors_of_a_folder(folder, change, parts):
    if "masks" in change:
        # A single video, because the fault is reported for each video.
        change = {**change, "root": f"{folder.root}/only"}
        write_videos(Path(change["root"]), names=("a",))
    message = error_of(open_split, replace(folder, **change))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("dataset", ["folder", "endovis15", "endovis17"])
def test_the_error_names_the_missing_folder(dataset):
    data = DataConfig(dataset=dataset, root="/none/there")
    assert "/none/there: no such folder" in error_of(open_dataset, data)
    data = DataConfig(dataset=dataset)
    assert f"give the {dataset} folder" in error_of(open_dataset, data)


def test_folds_with_missing_videos_are_rejected(endovis17):
    source = open_dataset(endovis17)
    message = error_of(split_names, replace(endovis17, fold=2), source)
    missing = ", ".join(f"instrument_dataset_{k}" for k in (5, 6, 7, 4, 8))
    assert f"fold 2 lacks {missing}; there are" in message
    assert "no 'fold 4': use one of fold 0," in error_of(
        split_names, replace(endovis17, fold=4), source
    )
    # Of the rendered dataset, some videos may be missing if both parts have one.
    few = replace(endovis17, dataset="synthetic", fold=3)
    assert "data.synthetic.sequences" in error_of(split_names, few, source)


def test_endovis18_is_split_by_its_published_divisions(tmp_path):
    rng = np.random.default_rng(0)
    for root, sequences in (("train", SEQUENCES), ("test", (1, 2, 3, 4))):
        for k in sequences:
            folder = tmp_path / root / f"seq_{k}"
            image = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
            for kind, array in (("left_frames", image), ("labels", 0 * image)):
                (folder / kind).mkdir(parents=True)
                Image.fromarray(array).save(folder / kind / "frame000.png")
    data = DataConfig(
        dataset="endovis18",
        root=str(tmp_path / "train"),
        size=(32, 64),
        task="parts",
        num_classes=4,
    )
    train, val = open_split(data)
    assert names(val) == ["seq_5", "seq_9", "seq_15"] and len(names(train)) == 12
    assert len(names(open_split(replace(data, split="isinet"))[0])) == 11
    data = replace(data, split="challenge")
    assert "--data.test-root DIR" in error_of(open_split, data)
    data = replace(data, test_root=str(tmp_path / "test"))
    train, val = open_split(data)
    assert len(names(train)) == 15
    assert names(val) == [f"test_seq_{k}" for k in (1, 2, 3, 4)]
    assert names(open_videos(data, ["test_seq_2"])) == ["test_seq_2"]
    # The test archive's seq_1 would be mistaken for another operation's.
    assert "seq_5" in error_of(open_split, replace(data, root=data.test_root))


def test_prepared_data_of_another_task_are_rejected(endovis17, tmp_path):
    request = Request("endovis17", task="types", size=(32, 40))
    prepare([endovis17.root], tmp_path / "out", request, log=lambda line: None)
    data = replace(endovis17, root=str(tmp_path / "out"))
    assert "prepared with task types; data.task is parts" in error_of(
        open_dataset, data
    )
    assert open_dataset(replace(data, task="types")).videos


def test_a_frame_in_both_parts_is_rejected(folder, tmp_path):
    root = write_videos(tmp_path, names=("b", "a", "c"))
    shutil.copytree(root / "b", root / "d")
    data = replace(folder, root=str(root), train=("a", "d"))
    with pytest.raises(ValueError, match="validation b, frame .* is the same image"):
        open_split(data)


def test_a_task_with_another_number_of_classes_is_rejected(endovis17):
    message = error_of(open_split, replace(endovis17, task="binary"))
    assert "data.num_classes is 4, but the dataset has 2: background" in message


def test_training_uses_as_many_labels_as_the_config_says(folder):
    train, val = open_split(replace(folder, max_labels=3))
    (stage,) = build_stages(train, Config(data=replace(folder, max_labels=3)))
    assert len(stage.loader.samples) == 3
    labels = [len(v.frames) - len(v.unlabeled) for v in (*train.videos, *val.videos)]
    assert labels[:2] in ([1, 2], [2, 1])
    assert labels[2] == len(val.videos[0].frames)  # validation keeps all labels


def test_stages_are_consecutive_and_have_their_own_clips(folder):
    train, _ = open_split(folder)
    config = Config(
        data=replace(folder, frame_step=2),
        model=ModelConfig(local_size=3, num_reads=2, global_size=4),
        train=TrainConfig(
            batch_size=4,
            stages=(
                StageConfig("one", 2, train="single_frame"),
                StageConfig("two", 1, lr_scale=0.1, train="memory"),
            ),
        ),
    )
    first, second = build_stages(train, config)
    # Every other one of 2 * 6 frames in batches of 4: two steps per epoch.
    assert [(s.begin, s.end) for s in (first, second)] == [(0, 4), (4, 6)]
    assert (second.name, second.part, second.lr_scale) == ("two", "memory", 0.1)
    assert first.loader.batch(0)["frames"].shape == (4, 1, 32, 64, 3)
    assert first.loader.batch(0)["past"].shape[1] == 0
    assert second.loader.batch(4)["frames"].shape == (4, 4, 32, 64, 3)
    assert second.loader.batch(4)["past"].shape[1] == 2


@pytest.mark.parametrize(
    ("model", "frames", "past"),
    [
        ({"local": "none"}, 1, 4),
        ({"global_memory": False}, 5, 0),
        ({"local": "none", "global_memory": False}, 1, 0),
    ],
)
def test_clips_contain_only_frames_that_a_memory_reads(folder, model, frames, past):
    train, _ = open_split(folder)
    config = Config(data=folder, model=ModelConfig(**model))
    (stage,) = build_stages(train, config)
    assert stage.loader.spec.length == frames
    assert stage.loader.spec.num_past == past
