"""The configuration of a run: frozen dataclasses with the paper's values as defaults.

Wang, Jin et al., "Efficient Global-Local Memory for Real-time Instrument Segmentation
of Robotic Surgical Video", MICCAI 2021; fields name its symbols. A recipe is a Python
file with `get_config() -> Config`; flags change single fields, and the result is stored
in every checkpoint. This module does not import JAX, so `--help` is fast.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from data_pipelines.corruption import KINDS
from data_pipelines.io.images import size_fault
from data_pipelines.io.names import name_fault
from data_pipelines.sources import DATASETS
from dmnet_jax.config.data import DataConfig as DataConfig
from dmnet_jax.config.data import SyntheticConfig as SyntheticConfig
from dmnet_jax.config.model import SHIPPED_STATE_PARTS, SHIPPED_WIDTHS
from dmnet_jax.config.model import ModelConfig as ModelConfig
from dmnet_jax.config.optim import OptimConfig as OptimConfig
from dmnet_jax.config.serialization import ConfigError, from_plain
from dmnet_jax.config.train import StageConfig as StageConfig
from dmnet_jax.config.train import TrainConfig as TrainConfig
from dmnet_jax.config.train import is_memory


@dataclass(frozen=True)
class Config:
    """The configuration of a run.

    Attributes:
        name: Name of the recipe.
        workdir: Folder of all runs.
        distributed: Train together with other processes, on one host or several.
    """

    name: str = ""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    workdir: str = "runs"
    distributed: bool = False

    @property
    def run_directory(self) -> Path:
        """The run directory, one per recipe, fold and seed."""
        leaf = f"fold{self.data.fold}-seed{self.train.seed}"
        return Path(self.workdir) / (self.name or "unnamed") / leaf

    @property
    def resolved_stages(self) -> tuple[StageConfig, ...]:
        """The stages to run, without those of memory modules that the network lacks."""
        stages = self.train.stages or (StageConfig("all", self.train.epochs),)
        model = self.model
        has = {
            "memory": model.has_memory,
            "state": model.state,
            "masks": model.has_masks,
        }
        return tuple(stage for stage in stages if has.get(stage.train, True))

    @property
    def takes_shipped_state(self) -> bool:
        """Whether the network has the shipped prediction state: no stage trains one."""
        untrained = all(stage.train == "single_frame" for stage in self.resolved_stages)
        return self.model.shipped_state and untrained


# Minimum values of plain numbers; other rules are in `validate`.
_MINIMUM = {
    "data.fold": 0,
    "data.frame_step": 1,
    "data.max_labels": 0,
    "data.threads": 0,
    "data.synthetic.frames": 1,
    "data.synthetic.cached_scenes": 1,
    "data.synthetic.cached_frames": 1,
    "data.synthetic.seed": 0,
    "model.local_size": 0,
    "model.num_reads": 1,
    "model.key_channels": 1,
    "model.value_channels": 1,
    "optim.weight_decay": 0,
    "optim.warmup_steps": 0,
    "optim.dice_weight": 0,
    "optim.cross_entropy_weight": 0,
    "optim.log_jaccard_weight": 0,
    "optim.focal_weight": 0,
    "optim.ohem_weight": 0,
    "optim.auxiliary_weight": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.rollout_truncate": 1,
    "train.eval_every_epochs": 1,
    "train.checkpoint_every_steps": 0,
    "train.log_every": 1,
    "train.max_skipped": 1,
}


def validate(config: Config) -> Config:
    """Checks types and ranges.

    Returns:
        An equal config in which every value has its declared type: a learning rate of 1
        becomes 1.0, a list becomes a tuple.

    Raises:
        ConfigError: names the first invalid field.
    """
    config = from_plain(Config, dataclasses.asdict(config), "")
    data, model, optim, train = config.data, config.model, config.optim, config.train
    clip = optim.clip_norm
    for path, least in _MINIMUM.items():
        _require(attrgetter(path)(config) >= least, config, path, f"at least {least}")
    for ok, path, requirement in (
        (
            all(side >= 32 and side % 32 == 0 for side in data.size),
            "data.size",
            "positive multiples of 32",
        ),
        (
            not size_fault(*data.size),
            "data.size",
            f"a valid image size: {size_fault(*data.size)}",
        ),
        (not {*data.train} & {*data.val}, "data.val", "videos not in data.train"),
        (2 <= data.num_classes <= 255, "data.num_classes", "in 2..255"),
        (
            data.mask_values == "class" or DATASETS[data.dataset].masks,
            "data.mask_values",
            f'"class": the masks of {data.dataset} have their own values',
        ),
        (
            data.mask_values != "binary" or data.num_classes == 2,
            "data.num_classes",
            '2 with data.mask_values "binary"',
        ),
        (0 < data.scale[0] <= data.scale[1], "data.scale", "0 < smallest <= largest"),
        (0 <= data.photometric <= 1, "data.photometric", "in [0, 1]"),
        (0 <= data.corrupt <= 1, "data.corrupt", "in [0, 1]"),
        (
            data.corrupt_kinds and set(data.corrupt_kinds) <= set(KINDS),
            "data.corrupt_kinds",
            f"some of {', '.join(KINDS)}",
        ),
        (
            data.cuts == 0 or (0 < data.cuts <= 1 and train.batch_size > 1),
            "data.cuts",
            "0, or up to 1 with a train.batch_size above 1: a sequence is cut to "
            "another sequence of its batch",
        ),
        (
            data.max_labels == 0 or data.frame_step == 1,
            "data.frame_step",
            "1 with data.max_labels",
        ),
        (
            data.max_labels == 0 or not DATASETS[data.dataset].endless,
            "data.max_labels",
            f"0 with data.dataset {data.dataset}, whose stream never ends",
        ),
        (
            not size_fault(*data.synthetic.size),
            "data.synthetic.size",
            f"a valid image size: {size_fault(*data.synthetic.size)}",
        ),
        (data.synthetic.sequences, "data.synthetic.sequences", "at least one number"),
        (
            0 < data.synthetic.rate < math.inf,
            "data.synthetic.rate",
            "a positive number of frames per second",
        ),
        (
            model.local_size >= 1 or model.local == "none",
            "model.local_size",
            'at least 1, unless model.local is "none"',
        ),
        (
            model.global_size >= model.num_reads,
            "model.global_size",
            f"at least model.num_reads, {model.num_reads}",
        ),
        (
            2 * model.value_channels == model.width or model.name != "dmnet",
            "model.width",
            f"twice model.value_channels, {2 * model.value_channels}",
        ),
        (
            model.width == SHIPPED_WIDTHS.get(model.pretrained, model.width),
            "model.width",
            f"{SHIPPED_WIDTHS.get(model.pretrained)}, the shipped network's, with "
            f'model.pretrained "{model.pretrained}"',
        ),
        (0 <= model.attention_dropout < 1, "model.attention_dropout", "in [0, 1)"),
        (
            model.pretrained,
            "model.pretrained",
            '"imagenet", "rendered", "rendered-fast", "none" or a file',
        ),
        (
            model.min_confidence is None or model.min_confidence <= 0,
            "model.min_confidence",
            "at most 0, like all confidences, or None",
        ),
        (optim.lr > 0, "optim.lr", "greater than 0"),
        (
            _ascending((0, *optim.drop_epochs)),
            "optim.drop_epochs",
            "ascending epochs, the first at least 1",
        ),
        (0 < optim.drop_factor <= 1, "optim.drop_factor", "in (0, 1]"),
        (
            sum(optim.loss_weights.values()) > 0,
            "optim.dice_weight",
            "greater than 0 if optim.cross_entropy_weight and the others are 0",
        ),
        (clip is None or clip > 0, "optim.clip_norm", "greater than 0, or None"),
        (
            train.rollout_frames > 0
            and train.rollout_frames % max(1, train.rollout_truncate) == 0,
            "train.rollout_frames",
            f"a multiple of train.rollout_truncate, {train.rollout_truncate}",
        ),
        (0 <= train.rollout_still <= 1, "train.rollout_still", "in [0, 1]"),
        (0 <= train.seed < 2**32, "train.seed", "in 0..2**32-1"),
        (config.workdir, "workdir", "a folder"),
        (
            not config.name or not name_fault(config.name),
            "name",
            "a folder name: not . or .., without slashes and control characters",
        ),
    ):
        _require(ok, config, path, requirement)
    _check_stages(config)
    return config


def _check_stages(config: Config) -> None:
    data, model, train = config.data, config.model, config.train
    if model.name != "dmnet":
        for i, stage in enumerate(train.stages):
            if stage.train != "all" or stage.recipe != "clip":
                raise ConfigError(
                    f"train.stages.{i} has train {stage.train!r}, recipe "
                    f'{stage.recipe!r}; {model.name} needs train "all", recipe "clip"'
                )
    stages = config.resolved_stages
    if not stages:
        raise ConfigError(
            "train.stages trains only the memory, but the network has no memory"
        )
    trained = any(stage.train != "single_frame" for stage in stages)
    known = config.takes_shipped_state or config.train.start_from
    if model.has_memory and not trained and not known:
        raise ConfigError(
            "train.stages does not train the network's memory; add a stage, set "
            'model.local to "none" and model.global_memory to False, or use the '
            'shipped prediction state alone: model.pretrained "rendered", model.state, '
            f"model.state_parts {' '.join(SHIPPED_STATE_PARTS)}"
        )
    for stage in stages:
        live = DATASETS[data.dataset].endless and not stage.cached_views
        if train.rollout_still and stage.recipe == "rollout" and live:
            raise ConfigError(
                f"train.rollout_still is {train.rollout_still}; with rendered scenes, "
                f'the stage "{stage.name}" needs cached_views, or set it to 0'
            )
        if model.has_masks and stage.train != "single_frame" and stage.recipe == "clip":
            raise ConfigError(
                f'train.stages: the stage "{stage.name}" has recipe "clip"; '
                'model.global_values "masks" needs "rollout", since a clip has no '
                "predictions for past frames"
            )
    for i, stage in enumerate(train.stages):
        if not stage.name or stage.epochs < 1 or stage.lr_scale <= 0:
            raise ConfigError(
                f"train.stages.{i} is {stage}; it must have a name, at least 1 epoch "
                "and an lr_scale greater than 0"
            )
        cacheable = is_memory(stage.train)
        if stage.cached_views < 0 or (stage.cached_views and not cacheable):
            raise ConfigError(
                f"train.stages.{i}.cached_views is {stage.cached_views}; it must be 0, "
                "or positive in a stage that trains only memory modules"
            )
        bursts = stage.cached_views and stage.recipe == "rollout" and data.corrupt
        if stage.corrupted_views < 0 or (stage.corrupted_views and not bursts):
            raise ConfigError(
                f"train.stages.{i}.corrupted_views is {stage.corrupted_views}; it must "
                'be 0, or positive in a stage with recipe "rollout" and cached_views, '
                "with data.corrupt above 0"
            )
        if stage.corruptions < 1 or (stage.corruptions > 1 and not data.corrupt):
            raise ConfigError(
                f"train.stages.{i}.corruptions is {stage.corruptions}; it must be 1, "
                "or more with data.corrupt above 0"
            )


def to_json(config: Config) -> str:
    """Converts a config to indented JSON, the inverse of `from_json`.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(dataclasses.asdict(config), indent=2, allow_nan=False)


def from_json(text: str) -> Config:
    """Converts the JSON of `to_json` to a config. Missing fields get their defaults.

    Ranges are not checked; use `validate`.

    Raises:
        ConfigError: the JSON is invalid, a field is unknown, or a value has the wrong
            type.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    return from_plain(Config, tree, "")


def _require(ok: object, config: Config, path: str, requirement: str) -> None:
    if not ok:
        value = attrgetter(path)(config)
        raise ConfigError(f"{path} is {value!r}; it must be {requirement}")


def _ascending(numbers: tuple[int, ...]) -> bool:
    return all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
