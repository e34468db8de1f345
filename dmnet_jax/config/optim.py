"""The optimizer part of a run's configuration; see `schema`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OptimConfig:
    """Adam, its schedule and the loss (paper, section 3.1).

    Attributes:
        lr: Initial learning rate.
        weight_decay: L2 factor on kernels.
        drop_epochs: Epochs after which the learning rate drops, ascending.
        drop_factor: Factor of each drop.
        warmup_steps: Steps of linear warmup from 0.
        dice_weight: Weight of the Dice loss.
        cross_entropy_weight: Weight of the cross-entropy.
        log_jaccard_weight: Weight of the negative logarithm of the soft Jaccard index
            (TernausNet).
        focal_weight: Weight of the focal loss, gamma 6 (LWANet).
        ohem_weight: Weight of the cross-entropy of the hard pixels (TDNet).
        auxiliary_weight: Weight of TDNet's auxiliary losses: 0.5 for each path alone
            and 0.1 for its third stage, relative to the loss of the logits.
        distillation_weight: Weight of the divergence from the predictions of
            `train.teacher`.
        clip_norm: Gradient norm to clip at. None: no clipping.
    """

    lr: float = 1e-4
    weight_decay: float = 1e-4
    drop_epochs: tuple[int, ...] = (70,)
    drop_factor: float = 0.1
    warmup_steps: int = 0
    dice_weight: float = 1.0
    cross_entropy_weight: float = 0.0
    log_jaccard_weight: float = 0.0
    focal_weight: float = 0.0
    ohem_weight: float = 0.0
    auxiliary_weight: float = 0.0
    distillation_weight: float = 1.0
    clip_norm: float | None = None

    @property
    def loss_weights(self) -> dict[str, Any]:
        """Weights of the losses, by argument of `losses.combined_loss`."""
        return {
            "dice": self.dice_weight,
            "cross_entropy": self.cross_entropy_weight,
            "log_jaccard": self.log_jaccard_weight,
            "focal": self.focal_weight,
            "ohem": self.ohem_weight,
        }
