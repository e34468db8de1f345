"""TDNet (TD2-PSP18) on EndoVis 2017 with its own losses.

Cross-entropy over hard pixels for the logits, for the current path alone (weight 0.5)
and for a head on the third stage (weight 0.1). TDNet also uses distillation losses of a
teacher network, which is not available here. Adam with the DMNet paper's schedule
replaces SGD, whose learning rates are for Cityscapes batches. The encoders of both
paths start from torchvision's resnet18:

    python train.py --config configs/tdnet.py --data.root DIR --fold 2 \\
        --model.pretrained resnet18.pth
    python train.py --config configs/tdnet.py --data.root DIR --fold 2 \\
        --model.name td4_psp18 --name tdnet4

Not measured on the real data: access to the archives requires registration.
"""

from dmnet_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="tdnet",
        data=DataConfig(dataset="endovis17", num_classes=8),
        model=ModelConfig(name="td2_psp18"),
        optim=OptimConfig(dice_weight=0.0, ohem_weight=1.0, auxiliary_weight=1.0),
        train=TrainConfig(batch_size=8),
    )
