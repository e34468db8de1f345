"""Training and validation share no frames, by name and content, in all divisions."""

import itertools
import shutil

import numpy as np
import pytest

from data_pipelines.frames import DataError, select_videos
from data_pipelines.io.images import difference_hash
from data_pipelines.loading.leakage import check_disjoint
from data_pipelines.prepare import Request, prepare
from data_pipelines.prepare.report import describe
from data_pipelines.prepared import open_prepared
from data_pipelines.sources import DATASETS, check_division
from data_pipelines.sources.endovis17 import FOLDS, open_endovis17
from data_pipelines.sources.endovis18 import SEQUENCES
from data_pipelines.synthetic import write_endovis17

REQUEST = Request("endovis17", task="types", size=(32, 40))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    write_endovis17(
        root, seed=3, sequences=range(1, 9), frames=2, size=(64, 80), threads=1
    )
    return root


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare([raw], out, REQUEST, log=lambda line: None)
    return out


@pytest.fixture(scope="module")
def leaking(raw, tmp_path_factory):
    """Sequence 6, a validation sequence of fold 3, has a frame of sequence 5."""
    root = tmp_path_factory.mktemp("leaking") / "raw"
    shutil.copytree(raw, root)
    frame = "left_frames/frame001.png"
    shutil.copy(
        root / "instrument_dataset_5" / frame, root / "instrument_dataset_6" / frame
    )
    return root


def parts(source, division):
    return select_videos(source, division.train), select_videos(source, division.val)


def divisions(dataset, videos=()):
    return DATASETS[dataset].divisions(videos)


def test_published_divisions_share_no_video():
    names = [f"{split}_{k}" for split in ("train", "val") for k in range(3)]
    for dataset in ("endovis17", "endovis18", "camvid"):
        for division in divisions(dataset, names).values():
            assert division.train and division.val
            assert not set(division.train) & set(division.val)
    assert divisions("folder") == {}
    folds = divisions("endovis17")
    val_videos = list(itertools.chain(*(folds[f"fold {k}"].val for k in range(4))))
    assert sorted(val_videos) == [f"instrument_dataset_{k}" for k in range(1, 9)]
    assert FOLDS == ((1, 3), (2, 5), (4, 8), (6, 7))
    published = divisions("endovis18")
    assert [len(published[n].train) for n in ("challenge", "paper", "isinet")] == [
        15,
        12,
        11,
    ]
    assert published["challenge"].val == tuple(f"test_seq_{k}" for k in (1, 2, 3, 4))
    assert published["isinet"].val == tuple(f"seq_{k}" for k in (2, 5, 9, 15))
    assert {*published["paper"].train, *published["paper"].val} == {
        f"seq_{k}" for k in SEQUENCES
    }


@pytest.mark.parametrize("fold", range(4))
def test_no_fold_shares_frames_in_raw_and_prepared_data(fold, raw, prepared):
    division = divisions("endovis17")[f"fold {fold}"]
    sources = open_endovis17(raw), open_prepared(prepared)
    for first, second in itertools.product(sources, sources):
        check_disjoint(
            select_videos(first, division.train), select_videos(second, division.val)
        )


def test_a_shared_frame_is_refused_raw_prepared_and_mixed(leaking, raw, tmp_path):
    lines = []
    prepare([leaking], tmp_path / "out", REQUEST, log=lines.append)
    assert any("1 pairs of frames of different videos" in line for line in lines)
    sources = open_endovis17(leaking), open_prepared(tmp_path / "out")
    published = divisions("endovis17")
    for first, second in itertools.product(sources, sources):
        for fold in range(4):
            train = select_videos(first, published[f"fold {fold}"].train)
            val = select_videos(second, published[f"fold {fold}"].val)
            if fold in (1, 3):  # these separate sequences 5 and 6
                with pytest.raises(DataError, match="frame001.*same image as train"):
                    check_disjoint(train, val)
            else:
                check_disjoint(train, val)


def test_a_shared_name_is_refused(raw):
    source = open_endovis17(raw)
    train = select_videos(source, ["instrument_dataset_1", "instrument_dataset_2"])
    with pytest.raises(DataError, match="instrument_dataset_2: among the training and"):
        check_disjoint(train, select_videos(source, ["instrument_dataset_2"]))


def test_missing_videos_of_a_division_are_named():
    fold = divisions("endovis17")["fold 1"]
    check_division(fold, fold.train, fold.val, "fold 1")
    with pytest.raises(DataError, match="fold 1 lacks instrument_dataset_8; there are"):
        check_division(fold, fold.train[:-1], fold.val, "fold 1")
    with pytest.raises(DataError, match="official has an empty part"):
        check_division(divisions("camvid")["official"], [], [], "official")


def test_the_table_counts_frames_by_class_and_fold(prepared):
    source = open_prepared(prepared)
    table = describe(source.manifest)
    rows = {line[:25].strip(): line[25:].split() for line in table[:11]}
    assert table[0].split() == ["fold", "0", "fold", "1", "fold", "2", "fold", "3"]
    assert rows["frames with"] == ["train", "val"] * 4
    assert rows["any"] == ["12", "4"] * 4
    for fold in range(4):
        for side, numbers in enumerate(
            parts(source, divisions("endovis17")[f"fold {fold}"])
        ):
            counts = np.zeros(8, int)
            for video, info in enumerate(numbers.videos):
                for frame in range(len(info.frames)):
                    counts[np.unique(numbers.label(video, frame))] += 1
            for info, count in zip(source.classes, counts, strict=True):
                assert int(rows[info.name][2 * fold + side]) == count
    assert any(line.startswith("2 frames, 225 as distributed: ") for line in table)


def test_similar_images_have_similar_hashes(raw):
    source = open_endovis17(raw)
    one, other = source.image(0, 0), source.image(4, 0)

    def distance(a, b):
        first, second = (int(difference_hash(image), 16) for image in (a, b))
        return (first ^ second).bit_count()

    noisy = np.clip(one.astype(int) + np.indices(one.shape).sum(0) % 2, 0, 255)
    assert distance(one, noisy.astype(np.uint8)) <= 12 < distance(one, other)
