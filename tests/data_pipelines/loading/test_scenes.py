"""Rendered scenes in place of videos: rows, classes, and batches by step."""

import numpy as np
import pytest

from data_pipelines.frames import IGNORE, ClassInfo, DataError
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.loader import ClipLoader
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.loading.scenes import WithScenes, part_classes
from data_pipelines.sources.rendered import RenderedVideos

SIZE = (64, 96)
SPEC = ClipSpec(local_size=1, num_past=1)
ROWS, SCENES = 3, 2
PARTS = (4, 2, 2)


def loaders(workers=0):
    source = RenderedVideos(0, 2, 4, SIZE)
    loader = ClipLoader(source, SPEC, batch_size=ROWS, seed=0, threads=workers)
    scenes = SceneStream(
        source, SPEC, SCENES, seed=5, size=SIZE, augment=Augment(), workers=workers
    )
    return loader, scenes, WithScenes(loader, scenes, PARTS)


def test_the_last_rows_show_scenes():
    loader, scenes, mixed = loaders()
    videos, rendered, batch = (x.batch(3) for x in (loader, scenes, mixed))
    kept = ROWS - SCENES
    assert batch.keys() == videos.keys()
    for name, array in batch.items():
        assert array.dtype == videos[name].dtype
        np.testing.assert_array_equal(array[:kept], videos[name][:kept])
        if name not in ("label", "video"):
            np.testing.assert_array_equal(array[kept:], rendered[name])
    assert (videos["frames"][kept:] != rendered["frames"]).any()
    frames = (mixed.rows, mixed.spec.length, *mixed.size, 3)
    assert batch["frames"].shape == frames and mixed.source is loader.source


def test_labels_of_scenes_have_the_classes_of_the_dataset():
    _, scenes, mixed = loaders()
    seen = set()
    for step in range(0, 24, 8):
        label = scenes.batch(step)["label"]
        expected = np.select(
            [label == 0, label == 1, label <= 3], [0, PARTS[0], PARTS[1]], IGNORE
        )
        np.testing.assert_array_equal(mixed.batch(step)["label"][-SCENES:], expected)
        seen |= {*np.unique(label)}
    assert {0, 1, 2, 3} <= seen


def test_scenes_are_named_by_negative_videos():
    loader, scenes, mixed = loaders()
    video = mixed.batch(9)["video"]
    assert (video[: ROWS - SCENES] >= 0).all() and (video[-SCENES:] < 0).all()
    assert mixed.video_name(int(video[0])) == loader.video_name(int(video[0]))
    number = int(scenes.batch(9)["video"][0])
    assert mixed.video_name(int(video[-SCENES])) == f"scene {number}"


def test_batches_are_the_same_with_workers_and_after_a_resume():
    mixed = loaders()[-1]
    assert mixed.steps_per_epoch == loaders()[0].steps_per_epoch
    for other in (mixed, loaders(workers=1)[-1]):
        batches = list(other.iterate(2, 4))
        assert len(batches) == 2
        for step, batch in enumerate(batches, 2):
            for name, array in mixed.batch(step).items():
                np.testing.assert_array_equal(batch[name], array)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("background", "shaft", "wrist", "claspers"), (1, 2, 3)),
        (("background", "shaft", "manipulator"), (1, 2, 2)),
        (("background", "instrument"), (1, 1, 1)),
        (("background", "shaft", "tip"), (1, 2, 2)),
        (("nothing", "Fat", "Tools"), (2, 2, 2)),
        (
            ("background-tissue", "instrument-shaft", "instrument-clasper")
            + ("instrument-wrist", "kidney-parenchyma"),
            (1, 3, 2),
        ),
    ],
)
def test_parts_are_found_by_names_of_classes(names, expected):
    assert part_classes([ClassInfo(name, (0, 0, 0)) for name in names]) == expected


def test_classes_without_parts_are_an_error():
    classes = [ClassInfo(name, (0, 0, 0)) for name in ("background", "scissors")]
    with pytest.raises(DataError) as error:
        part_classes(classes)
    for word in ("shaft", "1 scissors", "data.rendered_classes", "data.rendered 0"):
        assert word in str(error.value)
