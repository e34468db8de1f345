"""EndoVis 2015, robotic part: shaft and manipulator in real da Vinci video.

Trains on clips 1 and 2 and validates on clip 3, in two stages: a single-frame network,
then the memories with all other weights frozen. Color and scale augmentation is strong,
because the training clips show only two backgrounds and the validation clip a third.

    python train.py --config configs/endovis15.py --data.root DIR
    python train.py --config configs/endovis15.py --data.root DIR --model.local blstm

Measured, mean over seeds 0 to 2: mean IoU on clip 3 is 0.788 after the first stage and
0.781 with the memories (2 cores of an AMD EPYC, about 20 minutes per seed, 2026-11-25).
The memories do not help here; docs/results.md discusses why.
"""

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
                StageConfig("memory", 5, train="memory", cached_views=4),
            ),
            eval_every_epochs=6,
        ),
    )
