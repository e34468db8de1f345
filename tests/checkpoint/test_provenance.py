"""Provenance: the stored description of a run, and detection of its videos."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.frames import ClassInfo, Video
from dmnet_jax.checkpoint.provenance import (
    check_unseen,
    describe,
    frame_hashes,
    weights_sha256,
)
from dmnet_jax.config import Config, DataConfig


@dataclasses.dataclass(frozen=True)
class Images:
    """Videos by name, in which each frame is an image of noise or of a single color."""

    content: dict[str, list[int | None]]
    classes = (ClassInfo("background", (0, 0, 0)), ClassInfo("tool", (9, 9, 9)))

    @property
    def videos(self) -> tuple[Video, ...]:
        return tuple(
            Video(name, tuple(map(str, range(len(seeds)))))
            for name, seeds in self.content.items()
        )

    def image(self, video: int, frame: int) -> np.ndarray:
        seed = list(self.content.values())[video][frame]
        if seed is None:
            return np.zeros((8, 8, 3), np.uint8)
        return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)

    def label(self, video: int, frame: int) -> np.ndarray | None:
        return None


TRAIN = Images({"a": [*range(40)], "b": [None, *range(100, 105)]})
VAL = Images({"c": [*range(200, 210)]})


@pytest.fixture(scope="module")
def about():
    return describe(Config(data=DataConfig(fold=1)), TRAIN, VAL)


def test_fold_split_and_versions_are_recorded(about):
    assert about["fold"] == 1 and len(about["split_sha256"]) == 64
    assert about["train_videos"] == ["a", "b"] and about["val_videos"] == ["c"]
    assert about["versions"].keys() >= {"dmnet_jax", "jax", "numpy"}
    assert [len(about["content"]["train"][name]) for name in "ab"] == [8, 5]
    named = DataConfig(train=("a", "b"), val=("c",))
    assert describe(Config(data=named), TRAIN, VAL)["fold"] is None


def test_the_split_digest_depends_on_names_and_content(about):
    def split(train, val):
        return describe(Config(), train, val)["split_sha256"]

    assert split(TRAIN, VAL) == about["split_sha256"]
    assert split(VAL, TRAIN) != about["split_sha256"]
    other = Images({"c": [*range(200, 209), 999]})
    assert split(TRAIN, other) != about["split_sha256"]


def test_other_videos_may_be_evaluated(about):
    check_unseen(about, VAL)
    # A blank frame occurs in many videos and does not identify one.
    check_unseen(about, Images({"d": [None, 300, None]}))


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({"c": [200], "a": [1, 2]}, "trained on a; "),
        ({"renamed": [*range(40)]}, r"a \(here renamed\)"),
        ({"cut": [*range(10, 30)]}, r"a \(here cut\)"),
        ({"reversed": [*range(39, -1, -1)]}, r"a \(here reversed\)"),
        ({"mixed": [500, 501, 103, 502, 39]}, r"a \(here mixed\), b \(here mixed\)"),
    ],
)
def test_training_videos_are_rejected(about, videos, message):
    with pytest.raises(ValueError, match=message):
        check_unseen(about, Images(videos))


def test_frames_are_chosen_evenly_and_hashed_by_their_pixels():
    all_hashes = frame_hashes(TRAIN, 0)
    assert len(set(all_hashes)) == 40
    selected = frame_hashes(TRAIN, 0, 3)
    assert selected == [all_hashes[0], all_hashes[19], all_hashes[39]]


def test_the_weights_digest_depends_on_every_array():
    tree = {"params": {"a": np.ones((2, 3), np.float32)}, "thresholds": {"b": -0.5}}
    first = weights_sha256(tree)
    assert first == weights_sha256({name: tree[name] for name in reversed(tree)})
    tree["params"]["a"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert weights_sha256(tree) != first
