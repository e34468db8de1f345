"""EndoVis 2017: small data in the layout of the challenge, read back."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.frames import DataError, check
from data_pipelines.sources.endovis17 import (
    CLASSES,
    FOLDS,
    fold_split,
    instrument_type,
    open_endovis17,
    picture_box,
)

FOLDERS = {
    1: {
        "Left_Prograsp_Forceps_labels": 2,
        "Right_Prograsp_Forceps_labels": 2,
        "Maryland_Bipolar_Forceps_labels": 1,
        "Other_labels": 7,
    },
    2: {
        "Left_Prograsp_Forceps_labels": 2,
        "Right_Prograsp_Forceps_labels": 2,
        "Other_labels": 7,
    },
    3: {"Left_Large_Needle_Driver_labels": 3, "Right_Large_Needle_Driver_labels": 3},
    4: {
        "Large_Needle_Driver_Left_labels": 3,
        "Large_Needle_Driver_Right_labels": 3,
        "Prograsp_Forceps_labels": 2,
    },
    5: {
        "Bipolar_Forceps_labels": 1,
        "Grasping_Retractor_labels": 5,
        "Vessel_Sealer_labels": 4,
    },
    6: {
        "Left_Large_Needle_Driver_labels": 3,
        "Right_Large_Needle_Driver_labels": 3,
        "Monopolar_Curved_Scissors_labels": 6,
        "Prograsp_Forceps": 2,
    },
    7: {"Left_Bipolar_Forceps": 1, "Right_Vessel_Sealer": 4},
    8: {
        "Bipolar_Forceps_labels": 1,
        "Left_Grasping_Retractor_labels": 5,
        "Right_Grasping_Retractor_labels": 5,
        "Monopolar_Curved_Scissors_labels": 6,
    },
}
SIZE = (32, 40)


def add_border(picture, size=SIZE):
    """Adds the dark border of the 1080x1920 frames to a picture."""
    height, width = size
    frame = np.zeros(
        (round(1080 / 1024 * height), round(1920 / 1280 * width), *picture.shape[2:]),
        np.uint8,
    )
    top, left = round(28 / 1024 * height), round(320 / 1280 * width)
    frame[top : top + height, left : left + width] = picture
    return frame


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_sequence(root, k, frames=2):
    """Writes random images and overlapping masks; returns the masks by folder."""
    rng = np.random.default_rng(k)
    folder = root / f"instrument_dataset_{k}"
    masks = {name: [] for name in FOLDERS[k]}
    for frame in range(frames):
        picture = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        save(folder / f"left_frames/frame{frame:03}.png", add_border(picture))
        for name in FOLDERS[k]:
            mask = rng.choice([0, 0, 0, 10, 20, 30, 40], SIZE).astype(np.uint8)
            masks[name].append(mask)
            stored = add_border(mask)
            if k == 7:
                stored = np.repeat(stored[..., None], 3, axis=-1)
            save(folder / "ground_truth" / name / f"frame{frame:03}.png", stored)
    (folder / "camera_calibration.txt").write_text("")
    return masks


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("endovis17")
    return root, {k: write_sequence(root, k) for k in FOLDERS}


def reference(masks, types, task, row, column):
    """Computes the class of a pixel naively, from the folders in sorted order."""
    result = 0
    for name in sorted(masks):
        value = masks[name][row, column]
        if value == 0 or (types[name] == 7 and task != "types"):
            continue
        if task == "types":
            result = types[name]
        elif task == "binary":
            result = 1
        elif value in (10, 20, 30):
            result = value // 10
    return result


@pytest.mark.parametrize("task", ["types", "parts", "binary"])
def test_labels_of_all_eight_sequences(data, task):
    root, masks = data
    source = open_endovis17(root, task=task)
    assert [video.name[-1] for video in source.videos] == list("12345678")
    assert source.videos[0].frames == ("frame000", "frame001")
    seen = set()
    for video, k in enumerate(FOLDERS):
        frame = {name: each[1] for name, each in masks[k].items()}
        label = source.label(video, 1)
        assert label.dtype == np.uint8 and label.shape == SIZE
        for row, column in np.ndindex(SIZE):
            expected = reference(frame, FOLDERS[k], task, row, column)
            assert label[row, column] == expected
        seen |= set(np.unique(label).tolist())
    assert seen == set(range(len(source.classes)))
    assert not any(source.unknown_values(video, 1) for video in range(8))
    check(source)


def test_images_are_cropped(data):
    source = open_endovis17(data[0], sequences=(3, 1))
    assert [video.name[-1] for video in source.videos] == ["3", "1"]
    picture = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    assert np.array_equal(source.image(0, 0), picture)


@pytest.mark.parametrize(
    "size", [(64, 80), (128, 160), (256, 320), (512, 640), (1024, 1280), (1080, 1350)]
)
def test_crop_undoes_the_border_at_every_size(size):
    picture = np.full(size, 9, np.uint8)
    frame = add_border(picture, size)
    top, left, height, width = picture_box(*frame.shape)
    assert (height, width) == size
    assert (frame[top : top + height, left : left + width] == 9).all()
    assert (frame == 9).sum() == picture.size


def test_crop_undoes_the_border_at_every_multiple_of_32():
    for height in range(32, 2049, 32):
        size = (height, height * 5 // 4)
        frame = add_border(np.ones(size, np.uint8), size)
        top, left, *shape = picture_box(*frame.shape)
        assert tuple(shape) == size
        assert frame[top, left] and not frame[top - 1, left]
        assert not frame[top, left - 1] and frame.sum() == size[0] * size[1]


def test_challenge_frame_and_cropped_frames():
    assert picture_box(1080, 1920) == (28, 320, 1024, 1280)
    for size in ((1024, 1280), (512, 640), (256, 320), (205, 256)):
        assert picture_box(*size) == (0, 0, *size)
    for size in ((1024, 1024), (1920, 1080), (480, 640), (600, 960)):
        with pytest.raises(DataError, match="neither"):
            picture_box(*size)


def test_already_cropped_frames_are_unchanged(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.random.default_rng(1).choice([0, 10], SIZE).astype(np.uint8)
    folder = tmp_path / "instrument_dataset_5"
    save(folder / "left_frames/frame000.png", picture)
    save(folder / "ground_truth/Vessel_Sealer_labels/frame000.png", mask)
    source = open_endovis17(tmp_path)
    assert np.array_equal(source.image(0, 0), picture)
    assert np.array_equal(source.label(0, 0), mask // 10 * 4)


def test_archives_unpacked_side_by_side(tmp_path):
    write_sequence(tmp_path / "instrument_1_4_training", 3)
    write_sequence(tmp_path / "instrument_5_8_training", 5)
    source = open_endovis17(tmp_path)
    names = [video.name for video in source.videos]
    assert names == ["instrument_dataset_3", "instrument_dataset_5"]
    write_sequence(tmp_path / "instrument_5_8_copy", 5)
    with pytest.raises(DataError, match="sequence 5 again"):
        open_endovis17(tmp_path)


def test_unknown_values_are_rounded_to_the_nearest_part_and_reported(tmp_path):
    write_sequence(tmp_path, 5, frames=1)
    folder = tmp_path / "instrument_dataset_5/ground_truth"
    mask = np.zeros(SIZE, np.uint8)
    mask[0, :8] = (4, 5, 11, 14, 15, 31, 34, 44)
    for name in FOLDERS[5]:
        save(folder / name / "frame000.png", add_border(0 * mask))
    save(folder / "Vessel_Sealer_labels/frame000.png", add_border(mask))
    source = open_endovis17(tmp_path, task="parts")
    for _ in range(2):
        label = source.label(0, 0)
        assert label[0, :8].tolist() == [0, 1, 1, 1, 2, 3, 3, 0]
    path = folder / "Vessel_Sealer_labels/frame000.png"
    values = (4, 5, 11, 14, 15, 31, 34, 44)
    assert source.unknown_values(0, 0) == {path: {str(value): 1 for value in values}}
    types = open_endovis17(tmp_path).label(0, 0)
    assert types[0, :8].tolist() == [4] * 8
    mask[3, 7] = 255
    save(folder / "Vessel_Sealer_labels/frame000.png", add_border(mask))
    with pytest.raises(
        DataError, match=r"value 255 at row \d+, column \d+ is not a part"
    ):
        source.label(0, 0)


def test_all_faults_are_reported_together(tmp_path):
    for k in (1, 3, 7, 8):
        write_sequence(tmp_path, k)
    one, three, seven, eight = (
        tmp_path / f"instrument_dataset_{k}" for k in (1, 3, 7, 8)
    )
    (one / "ground_truth/Other_labels/frame001.png").unlink()
    truth = three / "ground_truth"
    mask = add_border(np.zeros(SIZE, np.uint8))
    save(truth / "Left_Large_Needle_Driver_labels/frame002.png", mask)
    save(truth / "Right_Large_Needle_Driver_labels/frame001.png", mask[1:])
    save(truth / "Scissors_labels/frame000.png", mask)
    (seven / "left_frames/frame001.png").write_bytes(b"")
    for path in sorted((eight / "left_frames").iterdir()):
        path.unlink()
    for k in range(2):
        image = np.zeros((50, 50, 3), np.uint8)
        save(eight / f"left_frames/frame{k:03}.png", image)
    with pytest.raises(DataError) as error:
        open_endovis17(tmp_path, sequences=(1, 3, 7, 8, 4))
    faults = error.value.faults
    expected = [
        "no folder instrument_dataset_4; there are (1, 3, 7, 8)",
        "frame001.png: frame without a mask; add ",
        "Left_Large_Needle_Driver_labels/frame002.png: mask without a frame",
        "Right_Large_Needle_Driver_labels/frame001.png: 60x33",
        "folder 'Scissors_labels' names 0 instruments",
        "instrument_dataset_7/left_frames/frame001.png: not a readable",
        "instrument_dataset_8/left_frames/frame000.png: frame of 50x50",
    ]
    for text in expected:
        assert sum(text in fault for fault in faults) == 1, text
    sizes = [f for f in faults if "instrument_dataset_8" in f and ": 50x50 (" in f]
    assert len(faults) == len(expected) + 2 and len(sizes) == 2
    assert str(error.value).splitlines() == list(faults)


def test_missing_parts_of_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_endovis17(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'type': must be one of binary, parts, ty"):
        open_endovis17(tmp_path, task="type")
    with pytest.raises(DataError, match="no folders instrument_dataset"):
        open_endovis17(tmp_path)
    (tmp_path / "instrument_dataset_1/left_frames").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        open_endovis17(tmp_path)
    frames, truth = error.value.faults
    assert "missing or empty" in frames and "ground truth" in truth


def test_folder_names_of_the_challenge_resolve_to_one_type():
    for folders in FOLDERS.values():
        for name, kind in folders.items():
            assert instrument_type(name) == kind
            assert CLASSES["types"][kind].name.split()[-1].title() in name
    for name in ("Scissors_labels", "Vessel_Sealer_or_Other"):
        with pytest.raises(DataError, match=name):
            instrument_type(name)


def test_folds_are_the_published_division():
    assert FOLDS == ((1, 3), (2, 5), (4, 8), (6, 7))
    for fold in range(4):
        train, val = fold_split(fold)
        assert val == FOLDS[fold] and len(train) == 6
        assert not set(train) & set(val)
        assert sorted(train + val) == list(range(1, 9))
    for fold in (-1, 4):
        with pytest.raises(ValueError, match="folds are 0 to 3"):
            fold_split(fold)


def test_class_tables_have_distinct_names_and_colors():
    assert [len(CLASSES[task]) for task in ("binary", "parts", "types")] == [2, 4, 8]
    for table in CLASSES.values():
        assert len({info.name for info in table}) == len(table)
        assert len({info.color for info in table}) == len(table)
        assert table[0].name == "background"
