"""MF-TAPNet (TAPNet-11 with a flow prior) on EndoVis 2017 with its loss and schedule.

Cross-entropy and the logarithm of the Jaccard index, with weights 0.7 and 0.3. Adam
with learning rate 3e-5, multiplied by 0.9 every 5 of 100 epochs, and L2 regularization
1e-4. Frames are neither flipped nor scaled. Needs OpenCV (`pip install -e ".[flow]"`).
The encoder starts from torchvision's vgg11:

    python train.py --config configs/tapnet.py --data.root DIR --fold 2 \\
        --model.pretrained vgg11.pth

Not measured on the real data: access to the archives requires registration.
"""

from dmnet_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="tapnet",
        data=DataConfig(
            dataset="endovis17",
            num_classes=8,
            flip_horizontal=False,
            flip_vertical=False,
            scale=(1.0, 1.0),
        ),
        model=ModelConfig(name="tapnet11"),
        optim=OptimConfig(
            lr=3e-5,
            drop_epochs=tuple(range(5, 100, 5)),
            drop_factor=0.9,
            dice_weight=0.0,
            cross_entropy_weight=0.7,
            log_jaccard_weight=0.3,
        ),
        train=TrainConfig(batch_size=8),
    )
