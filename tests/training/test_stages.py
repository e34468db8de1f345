"""The data loaders of training stages."""

from dataclasses import replace

import numpy as np

from data_pipelines.loading.cuts import WithCuts
from data_pipelines.loading.loader import ClipLoader
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.sources.rendered import RenderedVideos
from dmnet_jax.config import StageConfig, load_config
from dmnet_jax.training.stages import build_stages, with_cuts

SIZE = (64, 96)


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
