"""The shipped network, trained on an endless stream of rendered surgery.

Every scene has random instruments, tissue, light and camera
(`data_pipelines.synthetic.variety`). No real images are used.

    python train.py --config configs/pretrain.py

The shipped weights were trained for 952 steps of 32 frames, which took 6 minutes on one
H200 with 16 CPU cores that rendered (`--data.threads 15`). Measured: 0.84 mean IoU of
instruments on the robotic clips of EndoVis 2015, none of which was used in training;
docs/model_card.md has the command and all scores. Two cores of an AMD EPYC render 24
frames per second (2026-11-26).
"""

from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SyntheticConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="pretrain",
        data=DataConfig(
            dataset="rendered",
            task="parts",
            num_classes=4,
            size=(256, 320),
            scale=(0.6, 2.2),
            photometric=0.4,
            threads=2,
            synthetic=SyntheticConfig(scenes=12, frames=4, hold=16, epoch_steps=250),
        ),
        model=ModelConfig(local="none", global_memory=False),
        optim=OptimConfig(
            lr=1e-3,
            drop_epochs=(14, 18),
            drop_factor=0.3,
            cross_entropy_weight=0.5,
            warmup_steps=100,
            clip_norm=5.0,
        ),
        train=TrainConfig(epochs=20, batch_size=32, eval_every_epochs=10),
    )
