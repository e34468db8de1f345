"""The training part of a run's configuration; see `schema`."""

from dataclasses import dataclass
from typing import Literal

Part = Literal["all", "single_frame", "memory", "state", "masks"]
"""The part of a network that a stage trains; see `StageConfig.train`."""


def is_memory(part: Part) -> bool:
    """Returns whether a part consists of memory modules only."""
    return part not in ("all", "single_frame")


@dataclass(frozen=True)
class StageConfig:
    """One stage of a training run.

    Attributes:
        name: Name in the log.
        epochs: Length of the stage.
        lr_scale: Factor on `optim.lr`.
        train: Weights to train: all; those of the memory modules; of these, only the
            prediction state or the global memory of masks; or those of the
            single-frame network, which is all others.
        recipe: "clip": the paper's clips of past frames and a local window, with the
            last frame scored. "rollout": sequences with admission active and every
            labeled frame scored.
        cached_views: In a stage that trains the memory modules, encode each frame once
            under this many fixed augmentations and reuse the features. 0: encode frames
            in every clip.
        corrupted_views: Corrupted copies of each cached view ("rollout" only): whole
            videos corrupted by `data.corrupt_kinds`, from which bursts are inserted
            into a fraction `data.corrupt` of the sequences.
        corruptions: Corruptions on each corrupted frame, one on top of another. With
            two, a frozen network that knows its training videos by heart fails on them
            too, which teaches its memory when to replace it.
    """

    name: str
    epochs: int
    lr_scale: float = 1.0
    train: Part = "all"
    recipe: Literal["clip", "rollout"] = "clip"
    cached_views: int = 0
    corrupted_views: int = 0
    corruptions: int = 1


@dataclass(frozen=True)
class TrainConfig:
    """The training run.

    Attributes:
        epochs: Passes over the training frames, if there are no stages.
        batch_size: Clips per step, over all devices.
        seed: Seed of weights, order and augmentation.
        stages: Set in a recipe. Empty: one stage that trains everything.
        eval_every_epochs: Epochs between validations.
        checkpoint_every_steps: Steps between checkpoints. 0: at each validation.
        log_every: Steps between log lines.
        max_skipped: Number of consecutive steps skipped because their loss or gradient
            is not finite, after which the run stops.
        tensorboard: Also write scalars and images for TensorBoard (needs tensorboardX).
        memory_gradient: Also train the encoder through the memory frames (clips).
        rollout_frames: Frames of a sequence ("rollout").
        rollout_stride: Largest distance between frames of a sequence (cached views).
        rollout_still: Fraction of sequences that repeat one frame ("rollout"). Where
            labeled frames are a second apart, a memory learns from these that what it
            saw is still there.
        rollout_truncate: Frames through which gradients are propagated back; divides
            `rollout_frames`.
        start_from: Run directory whose newest weights to start from, .safetensors file
            of a network, or "rendered" or "rendered-fast" for the shipped networks, for
            all modules that both networks have. Empty: only the pretrained weights.
        teacher: Run directory of a wider network, or "rendered", from whose predictions
            this one learns too, in all stages but those of the memory alone, and from
            whose encoder it starts (`optim.distillation_weight`).
    """

    epochs: int = 100
    batch_size: int = 16
    seed: int = 0
    stages: tuple[StageConfig, ...] = ()
    eval_every_epochs: int = 1
    checkpoint_every_steps: int = 0
    log_every: int = 10
    max_skipped: int = 10
    tensorboard: bool = False
    memory_gradient: bool = False
    rollout_frames: int = 12
    rollout_stride: int = 1
    rollout_still: float = 0.0
    rollout_truncate: int = 4
    start_from: str = ""
    teacher: str = ""
