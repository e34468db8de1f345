"""EndoVis 2018: small data in the layout of the challenge, read back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.frames import IGNORE, DataError, check
from data_pipelines.sources.endovis18 import (
    CLASSES,
    SEQUENCES,
    SPLITS,
    decode_colors,
    open_endovis18,
)
from data_pipelines.synthetic import ENDOVIS18_LABELS, ENDOVIS18_SEQUENCES
from data_pipelines.synthetic import write_endovis18 as write_synthetic

SIZE = (12, 16)
# Copied independently from the labels.json of the challenge: color by id.
COLORS = np.array(
    [
        (0, 0, 0),
        (0, 255, 0),
        (0, 255, 255),
        (125, 255, 12),
        (255, 55, 0),
        (24, 55, 125),
        (187, 155, 25),
        (0, 255, 125),
        (255, 255, 125),
        (123, 15, 175),
        (124, 155, 5),
        (12, 255, 141),
    ],
    np.uint8,
)
SHAFT, CLASPER, WRIST = 1, 2, 3


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_sequence(folder, k, frames=3):
    """Writes random images and labels of all ids; even sequences have random alpha."""
    rng = np.random.default_rng(k)
    ids = rng.integers(0, 12, (frames, *SIZE))
    for frame in range(frames):
        name = f"frame{frame:03d}.png"
        picture = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        save(folder / "left_frames" / name, picture)
        label = COLORS[ids[frame]]
        if k % 2 == 0:
            alpha = rng.integers(0, 256, (*SIZE, 1), dtype=np.uint8)
            label = np.concatenate([label, alpha], -1)
        save(folder / "labels" / name, label)
    return ids


@pytest.fixture
def tree(tmp_path):
    ids = {
        k: write_sequence(tmp_path / release / f"seq_{k}", k)
        for k, release in ((1, "release_1"), (2, "release_1"), (9, "release_3"))
    }
    return tmp_path, ids


def faults_of(root, **options):
    with pytest.raises(DataError) as error:
        check(open_endovis18(root, **options))
    return error.value.faults


def test_all_classes_are_the_raw_ids(tree):
    root, ids = tree
    source = open_endovis18(root, task="all")
    assert [video.name for video in source.videos] == ["seq_1", "seq_2", "seq_9"]
    assert [info.color for info in source.classes] == [tuple(c) for c in COLORS]
    for video, k in enumerate((1, 2, 9)):
        for frame in range(3):
            np.testing.assert_array_equal(source.label(video, frame), ids[k][frame])
            assert source.image(video, frame).shape == (*SIZE, 3)


def test_parts_are_shaft_wrist_claspers_in_that_order(tree):
    root, ids = tree
    source = open_endovis18(root)
    names = [info.name for info in source.classes]
    assert names == ["background", "shaft", "wrist", "claspers"]
    label, raw = source.label(1, 2), ids[2][2]
    for part, raw_id in enumerate((SHAFT, WRIST, CLASPER), 1):
        np.testing.assert_array_equal(label == part, raw == raw_id)


def test_sequences_are_opened_in_the_given_order(tree):
    root, _ = tree
    source = open_endovis18(root, sequences=(9, 1))
    assert [video.name for video in source.videos] == ["seq_9", "seq_1"]
    assert "no folder seq_8" in faults_of(root, sequences=(1, 8))[0]


def test_files_that_macos_adds_are_ignored(tmp_path):
    ids = write_sequence(tmp_path / "release_2" / "release_2" / "seq_5" / "seq_5", 5)
    shadow = tmp_path / "__MACOSX" / "release_2" / "seq_5" / "left_frames"
    shadow.mkdir(parents=True)
    (shadow / "._frame000.png").write_bytes(b"\0")
    inside = tmp_path / "release_2/release_2/seq_5/seq_5/labels/._frame000.png"
    inside.write_bytes(b"\0")
    source = open_endovis18(tmp_path, task="all")
    assert source.videos[0].frames == ("frame000", "frame001", "frame002")
    np.testing.assert_array_equal(source.label(0, 1), ids[1])


def test_repairs_replace_labels(tree):
    root, ids = tree
    repaired = np.full(SIZE, SHAFT)
    save(root / "repairs" / "repairs" / "seq_1_frame001.png", COLORS[repaired])
    source = open_endovis18(root, task="all")
    np.testing.assert_array_equal(source.label(0, 1), repaired)
    np.testing.assert_array_equal(source.label(0, 0), ids[1][0])
    np.testing.assert_array_equal(source.label(1, 1), ids[2][1])


def test_a_repair_without_a_label_is_reported(tree):
    root, _ = tree
    save(root / "repairs" / "seq_1_frame007.png", COLORS[np.full(SIZE, SHAFT)])
    faults = faults_of(root)
    assert len(faults) == 1 and "seq_1_frame007.png" in faults[0]


def test_unknown_colors_are_errors_ignored_or_nearest(tree):
    root, ids = tree
    path = root / "release_1" / "seq_1" / "labels" / "frame001.png"
    label = COLORS[ids[1][1]]
    label[3, 5] = (1, 250, 3)
    save(path, label)
    (fault,) = faults_of(root)
    for part in (str(path), "(1, 250, 3)", "row 3", "column 5"):
        assert part in fault
    expected = ids[1][1].copy()
    for choice, value in (("nearest", SHAFT), ("ignore", IGNORE)):
        source = open_endovis18(root, task="all", on_unknown=choice)
        expected[3, 5] = value
        np.testing.assert_array_equal(source.label(0, 1), expected)

        assert source.unknown_values(0, 1) == {path: {"#01fa03": 1}}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20))
def test_colors_are_decoded_as_by_comparing_each(colors):
    rgb = np.array([[*colors, *map(tuple, COLORS.tolist())]], np.uint8)
    distance = ((rgb[0, :, None].astype(int) - COLORS.astype(int)) ** 2).sum(-1)
    exact = distance.min(-1) == 0
    nearest, unknown = decode_colors(rgb, "x.png", on_unknown="nearest")
    ignored, _ = decode_colors(rgb, "x.png", on_unknown="ignore")
    assert sum(unknown.values()) == np.count_nonzero(~exact)
    np.testing.assert_array_equal(nearest[0], distance.argmin(-1))
    np.testing.assert_array_equal(
        ignored[0], np.where(exact, distance.argmin(-1), IGNORE)
    )
    parts, _ = decode_colors(rgb, "x.png", task="parts", on_unknown="ignore")
    np.testing.assert_array_equal(parts == IGNORE, ignored == IGNORE)


def test_all_faults_of_a_tree_are_reported_together(tree):
    root, _ = tree
    first, second = root / "release_1" / "seq_1", root / "release_1" / "seq_2"
    (first / "labels" / "frame002.png").unlink()
    save(first / "labels" / "frame009.png", COLORS[np.zeros(SIZE, int)])
    save(second / "left_frames" / "frame001.png", np.zeros((8, 9, 3), np.uint8))
    save(second / "left_frames" / "frame1.png", np.zeros((*SIZE, 3), np.uint8))
    save(second / "labels" / "frame1.png", COLORS[np.zeros(SIZE, int)])
    save(second / "labels" / "extra.png", COLORS[np.zeros(SIZE, int)])
    (root / "release_3" / "seq_9" / "left_frames" / "frame000.png").write_bytes(b"no")
    text = "\n".join(faults_of(root))
    for part in (
        "frame002.png: frame without a mask",
        "frame009.png: mask without a frame",
        "frame001.png: 9x8",
        "frame1.png: same frame number as frame001.png",
        "extra.png: the name must be",
        "frame000.png: not a readable",
    ):
        assert part in text


def test_the_test_archive_needs_a_separate_root(tree):
    root, _ = tree
    write_sequence(root / "test_data" / "seq_1", 1)
    (fault,) = faults_of(root)
    assert "sequence 1 again" in fault and "test archive" in fault


@pytest.mark.parametrize("name", ["left_frames", "labels"])
def test_a_missing_folder_is_one_fault(tree, name):
    root, _ = tree
    (root / "release_3" / "seq_9" / name).rename(root / "elsewhere")
    faults = faults_of(root)
    assert len(faults) == 1 and name in faults[0]


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_endovis18(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="task='types'"):
        open_endovis18(tmp_path, task="types")
    with pytest.raises(ValueError, match="on_unknown='guess'"):
        open_endovis18(tmp_path, on_unknown="guess")
    assert "no folders seq_1" in faults_of(tmp_path)[0]


def test_splits_have_every_sequence_once():
    for name, split in SPLITS.items():
        assert sorted(split.train + split.val) == list(SEQUENCES), name
        assert 8 not in split.train + split.val
    assert SPLITS["paper"].val == (5, 9, 15) and len(SPLITS["paper"].train) == 12
    assert SPLITS["isinet"].val == (2, 5, 9, 15)
    assert SPLITS["challenge"].test == (1, 2, 3, 4)
    assert SEQUENCES == ENDOVIS18_SEQUENCES and len(SEQUENCES) == 15


def test_reads_what_the_synthetic_writer_writes(tmp_path):
    write_synthetic(tmp_path, seed=3, sequences=(1, 2), frames=2, size=(64, 80))
    source = open_endovis18(tmp_path, task="all")
    assert [(c.name, c.color) for c in CLASSES["all"]] == list(ENDOVIS18_LABELS)
    seen = set()
    for video in range(2):
        for frame in range(2):
            seen |= set(np.unique(source.label(video, frame)).tolist())
            assert not source.unknown_values(video, frame)
    assert {SHAFT, CLASPER, WRIST} <= seen <= set(range(12))
