"""EndoVis 2015, robotic part: shaft and manipulator on real da Vinci video."""

from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    StageConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="endovis15",
        data=DataConfig(
            dataset="endovis15",
            size=(256, 320),
            train=("clip1", "clip2"),
            val=("clip3",),
            num_classes=3,
            scale=(0.75, 1.35),
            photometric=0.5,
            frame_step=2,
        ),
        model=ModelConfig(),
        optim=OptimConfig(
            lr=5e-4,
            drop_epochs=(4,),
            warmup_steps=30,
            cross_entropy_weight=0.5,
            clip_norm=5.0,
        ),
        train=TrainConfig(
            batch_size=4,
            stages=(
                StageConfig("single frame", 6, train="single_frame"),
                StageConfig("memory", 5, train="memory"),
            ),
            eval_every_epochs=6,
        ),
    )
