"""TernausNet-16 on EndoVis 2017 with its own loss and schedule.

Cross-entropy and the logarithm of the Jaccard index, with weights 0.7 and 0.3. Adam
with learning rate 1e-4 for 10 epochs and 1e-5 for 20 more; batches of 6; flips are the
only augmentation. The authors' release computes the index of each class over a batch
and sums over classes; here it is computed per sample, with weight 0.3 for each of 8
classes. The encoder starts from torchvision's vgg16:

    python train.py --config configs/ternausnet.py --data.root DIR --fold 2 \\
        --model.pretrained vgg16.pth

Not measured on the real data: access to the archives requires registration.
"""

from dmnet_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="ternausnet",
        data=DataConfig(dataset="endovis17", num_classes=8, scale=(1.0, 1.0)),
        model=ModelConfig(name="ternausnet16"),
        optim=OptimConfig(
            lr=1e-4,
            weight_decay=0.0,
            drop_epochs=(10,),
            dice_weight=0.0,
            cross_entropy_weight=0.7,
            log_jaccard_weight=0.3 * 8,
        ),
        train=TrainConfig(epochs=30, batch_size=6),
    )
