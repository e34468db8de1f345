"""TD2-PSP18 on EndoVis 2017 with TDNet's own losses.

Cross-entropy of the hard pixels: of the logits, of the path alone (0.5) and of a head
on the third stage (0.1). TDNet also uses the losses of a teacher, which is missing
here. Adam with the paper's schedule replaces its SGD, whose rates are for Cityscapes
batches. The encoders of both paths start from torchvision's resnet18:

    python train.py --config configs/tdnet.py --data.root DIR --fold 2 \\
        --model.pretrained resnet18.pth
    python train.py --config configs/tdnet.py --data.root DIR --fold 2 \\
        --model.name td4_psp18 --name tdnet4

Not measured on the real data: the archives need registration.
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
