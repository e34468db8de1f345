"""The data loaders of training stages."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.frames import ClassInfo
from data_pipelines.loading.cuts import WithCuts
from data_pipelines.loading.loader import ClipLoader
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.loading.scenes import WithScenes
from data_pipelines.sources.rendered import RenderedVideos
from dmnet_jax.config import StageConfig, load_config
from dmnet_jax.training.stages import build_stages, with_cuts

SIZE = (64, 96)
SOURCE = RenderedVideos(0, 1, 2, SIZE)


def stages(cached: int, cuts: float = 0.0):
    config = load_config("pretrain_state")
    synthetic = replace(config.data.synthetic, cached_scenes=2, cached_frames=3)
    data = replace(config.data, size=SIZE, synthetic=synthetic, cuts=cuts)
    state = StageConfig(
        "state", 1, train="memory", recipe="rollout", cached_views=cached
    )
    first = StageConfig("single frame", 1, train="single_frame")
    config = replace(
        config, data=data, train=replace(config.train, stages=(first, state))
    )
    source = RenderedVideos(0, 1, 2, SIZE)
    return config, build_stages(source, config)


def test_rendered_scenes_are_a_stream_unless_their_frames_are_cached():
    _, (first, state) = stages(cached=0)
    assert isinstance(first.loader, SceneStream)
    assert isinstance(state.loader, SceneStream) and state.begin == first.end
    _, (first, state) = stages(cached=1)
    assert isinstance(first.loader, SceneStream)
    assert isinstance(state.loader, ClipLoader)
    videos = state.loader.source.videos
    assert [len(video.frames) for video in videos] == [3, 3]
    # The scenes are those of the stream, not the validation scenes.
    validation = RenderedVideos(0, 1, 3, SIZE)
    trained = state.loader.source.image(0, 1)
    assert (trained != validation.image(0, 1)).any()
    stream = RenderedVideos(0, 1, 3, SIZE, rate=first.loader.rate, first=0)
    np.testing.assert_array_equal(trained, stream.image(0, 1))


def test_only_sequences_are_cut():
    config, (first, state) = stages(cached=0, cuts=0.5)
    assert with_cuts(first, config) is first
    assert isinstance(with_cuts(state, config).loader, WithCuts)
    config, (_, state) = stages(cached=0)
    assert with_cuts(state, config) is state


@pytest.mark.parametrize(
    ("rendered", "scenes"), [(0.0, 0), (0.1, 1), (0.5, 2), (0.99, 3)]
)
def test_scenes_take_the_place_of_clips(rendered, scenes):
    config = load_config("endovis15_state")
    data = replace(config.data, size=SIZE, rendered=rendered)
    first, state = build_stages(SOURCE, replace(config, data=data))
    assert isinstance(state.loader, ClipLoader)  # its frames are cached
    assert isinstance(first.loader, WithScenes) == (scenes > 0)
    assert first.end == first.loader.steps_per_epoch * 8
    batch = first.loader.batch(0)
    assert len(batch["video"]) == config.train.batch_size == 4
    assert (batch["video"] < 0).sum() == scenes
    assert batch["frames"].shape == (4, 1, *SIZE, 3)


def test_classes_of_scenes_are_given_or_found():
    class Named:
        classes = tuple(ClassInfo(n, (0, 0, 0)) for n in ("nothing", "fat", "tool"))
        videos = SOURCE.videos
        image, label = SOURCE.image, SOURCE.label

    config = load_config("endovis15_state")
    for given, expected in (((), {0, 2}), ((1, 1, 1), {0, 1})):
        data = replace(config.data, size=SIZE, rendered=0.75, rendered_classes=given)
        loader = build_stages(Named(), replace(config, data=data))[0].loader
        labels = [loader.batch(step)["label"][1:] for step in range(0, 16, 4)]
        assert {*np.unique(labels)} - {255} == expected


def test_a_process_with_one_clip_has_no_room_for_scenes():
    config = load_config("endovis15_state")
    config = replace(config, data=replace(config.data, size=SIZE, rendered=0.5))
    with pytest.raises(
        ValueError, match="data.rendered is 0.5.*raise train.batch_size"
    ):
        build_stages(SOURCE, config, process_index=1, process_count=4)
