"""Training stages of a run and their data loaders."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from data_pipelines.corruption import Corruption
from data_pipelines.frames import FrameSource, cache_frames
from data_pipelines.loading.augment import Augment
from data_pipelines.loading.clips import ClipSpec
from data_pipelines.loading.cuts import WithCuts
from data_pipelines.loading.loader import Batches, ClipLoader
from data_pipelines.loading.rendered import SceneStream
from data_pipelines.sources import DATASETS
from data_pipelines.sources.rendered import STREAM_RATE, RenderedVideos
from dmnet_jax.config import Config, DataConfig
from dmnet_jax.config.train import Part, is_memory


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: name in the log.
        part: part of the network that is trained.
        recipe: forward function and kind of batch, a key of `models.forward.FORWARD`.
        cached_views: see `StageConfig`.
        corrupted_views: see `StageConfig`.
        lr_scale: factor on the learning rate.
        loader: loader of its batches, which are numbered over the whole run.
        begin: number of steps before the stage.
        end: number of steps after the stage.
    """

    name: str
    part: Part
    recipe: Literal["clip", "features", "rollout", "sequences", "decoded_sequences"]
    cached_views: int
    corrupted_views: int
    lr_scale: float
    loader: Batches
    begin: int
    end: int

    @property
    def only_memory(self) -> bool:
        """Whether the single-frame network is frozen."""
        return is_memory(self.part)


def build_stages(
    source: FrameSource,
    config: Config,
    *,
    process_index: int = 0,
    process_count: int = 1,
) -> tuple[Stage, ...]:
    """Returns the stages of a run, in order.

    Single-frame stages have clips of one frame.

    Args:
        source: the training videos.
        config: config of the run.
        process_index: index of this process. It loads only its own rows of a batch.
        process_count: number of processes.
    """
    data, model, train = config.data, config.model, config.train
    stages, begin = [], 0
    for stage in config.resolved_stages:
        alone = stage.train == "single_frame"
        spec = ClipSpec(
            local_size=0 if alone else model.window,
            num_past=0 if alone else model.past,
        )
        if stage.recipe == "rollout":
            spec = ClipSpec(
                train.rollout_frames - 1,
                num_past=0,
                stride=train.rollout_stride if stage.cached_views else 1,
                score_all=True,
                still=train.rollout_still,
            )
        augment = Augment(
            flip_horizontal=data.flip_horizontal,
            flip_vertical=data.flip_vertical,
            scale=data.scale,
            photometric=data.photometric,
        )
        corruption = (
            Corruption(data.corrupt, data.corrupt_kinds, stage.corruptions)
            if data.corrupt
            else None
        )
        shared: dict[str, Any] = {
            "corruption": corruption,
            "batch_size": train.batch_size,
            "seed": train.seed,
            "augment": augment,
            "process_index": process_index,
            "process_count": process_count,
        }
        loader: Batches
        endless = DATASETS[data.dataset].endless
        if endless and not stage.cached_views:
            loader = SceneStream(
                source,
                spec,
                size=data.size,
                hold=data.synthetic.hold,
                steps_per_epoch=data.synthetic.epoch_steps,
                workers=data.threads,
                **shared,
            )
        else:
            loader = ClipLoader(
                _fixed_scenes(data) if endless else source,
                spec,
                threads=data.threads,
                frame_step=data.frame_step,
                **shared,
            )
        end = begin + stage.epochs * loader.steps_per_epoch
        stages.append(
            Stage(
                stage.name,
                stage.train,
                stage.recipe,
                stage.cached_views,
                stage.corrupted_views,
                stage.lr_scale,
                loader,
                begin,
                end,
            )
        )
        begin = end
    return tuple(stages)


def _fixed_scenes(data: DataConfig) -> FrameSource:
    """Returns a fixed set of scenes, since frames of an endless stream never repeat."""
    synthetic = data.synthetic
    scenes = RenderedVideos(
        synthetic.seed,
        synthetic.cached_scenes,
        synthetic.cached_frames,
        data.size,
        rate=STREAM_RATE,
        first=0,
    )
    return cache_frames(scenes)


def with_cuts(stage: Stage, config: Config) -> Stage:
    """Adds `data.cuts` to a stage of sequences; other stages are unchanged."""
    if not config.data.cuts or stage.recipe in ("clip", "features"):
        return stage
    loader = WithCuts(stage.loader, config.data.cuts, config.train.seed)
    return replace(stage, loader=loader)
