"""LWANet on EndoVis 2017 with its own loss and schedule.

Focal loss with gamma 6. Adam with learning rate 2e-5, multiplied by 0.8 every 30 of 200
epochs; batches of 8. The authors' release halves the size of frames, like
`--data.size 256 320`. The encoder starts from the shipped ImageNet weights.

    python train.py --config configs/lwanet.py --data.root DIR --fold 2

Not measured on the real data: access to the archives requires registration.
"""

from dmnet_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="lwanet",
        data=DataConfig(dataset="endovis17", num_classes=8, scale=(1.0, 1.0)),
        model=ModelConfig(name="lwanet"),
        optim=OptimConfig(
            lr=2e-5,
            weight_decay=0.0,
            drop_epochs=(30, 60, 90, 120, 150, 180),
            drop_factor=0.8,
            dice_weight=0.0,
            focal_weight=1.0,
        ),
        train=TrainConfig(epochs=200, batch_size=8),
    )
