"""The EndoVis 2017 test archives: label folders, mask values, excluded sequences."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import DataError
from data_pipelines.prepare.__main__ import main
from data_pipelines.prepared import open_prepared
from data_pipelines.sources.endovis17 import (
    KINDS,
    TEST_SEQUENCES,
    open_endovis17_test,
    train_for_test,
)

VALUES = {"binary": (0, 1, 255), "parts": (0, 30, 100, 255, 200), "types": range(8)}
CLASSES = {"binary": (0, 1, 1), "parts": (0, 1, 2, 3, 0), "types": range(8)}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    """The unpacked archives: frames and ground truth are separate."""
    for k, first in ((1, 225), (9, 0)):
        name = f"instrument_dataset_{k}"
        for number in range(first, first + 2):
            frame = np.zeros((108, 192, 3), np.uint8)
            frame[3:105, 32:160] = k + number % 7
            archive = f"instrument_{'1_4' if k == 1 else '9_10'}_testing"
            file = f"frame{number:03d}.png"
            save(tmp_path / archive / name / "left_frames" / file, frame)
            for task, folder in KINDS.items():
                mask = np.zeros((108, 192), np.uint8)
                mask[10, 40 : 40 + len(VALUES[task])] = VALUES[task]
                truth = tmp_path / "instrument_2017_test" / "instrument_2017_test"
                inner = name if k == 9 else f"{name}/gt"
                save(truth / inner / folder / file, mask)
    return tmp_path


@pytest.mark.parametrize("task", KINDS)
def test_labels_have_the_classes_of_the_training_data(root, task):
    source = open_endovis17_test(root, task=task)
    assert [(video.name, video.frames) for video in source.videos] == [
        ("instrument_dataset_1", ("frame225", "frame226")),
        ("instrument_dataset_9", ("frame000", "frame001")),
    ]
    for video in range(2):
        label = source.label(video, 1)
        assert label.shape == source.image(video, 1).shape[:2] == (102, 128)
        row = label[7, 8 : 8 + len(VALUES[task])]
        assert row.tolist() == list(CLASSES[task])
        assert label.sum() == row.sum()


def test_test_archives_are_prepared_separately(root, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--dataset", "endovis17", "--subset", "test", "--task", "parts"]
    command += ["--raw", str(root), "--size", "32x40", "--out", str(out)]
    assert main(command) == 0
    assert "2 frames, 75 as distributed: instrument_dataset_1" in (
        capsys.readouterr().out
    )
    prepared, source = open_prepared(out), open_endovis17_test(root, task="parts")
    np.testing.assert_array_equal(prepared.label(1, 0), source.label(1, 0))


def test_invalid_files_and_arguments_are_reported(root):
    truth = root / "instrument_2017_test/instrument_2017_test"
    path = truth / "instrument_dataset_9/PartsSegmentation/frame001.png"
    mask = np.array(Image.open(path))
    mask[20, 50] = 10  # a training value
    save(path, mask)
    with pytest.raises(DataError, match=r"value 10 at row 20, column 50 is not one of"):
        open_endovis17_test(root, task="parts").label(1, 1)
    path.unlink()
    with pytest.raises(DataError, match="frame001.png: frame without a mask"):
        open_endovis17_test(root, task="parts")
    (truth / "instrument_dataset_9").rename(truth / "elsewhere")
    with pytest.raises(DataError, match="no labels; unpack the test ground truth"):
        open_endovis17_test(root, task="types")
    with pytest.raises(DataError, match="no folder instrument_dataset_5"):
        open_endovis17_test(root, sequences=(5,))
    with pytest.raises(ValueError, match="task="):
        open_endovis17_test(root, task="all")


def test_the_training_sequence_of_the_same_number_is_excluded():
    for k in TEST_SEQUENCES:
        allowed = train_for_test(k)
        assert k not in allowed
        assert {*allowed, k} >= set(range(1, 9))
    with pytest.raises(ValueError, match="sequence=11"):
        train_for_test(11)
