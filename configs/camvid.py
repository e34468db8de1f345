"""CamVid, 11 classes of street video, on the official split.

Measures the memories on video that is not surgery. Consecutive training frames are one
second apart, consecutive validation frames 1/15 of a second, so training and test
conditions of the memories differ. A video is an uninterrupted part of one drive. Two
stages, as in configs/endovis15.py.

    python train.py --config configs/camvid.py --data.root DIR

DIR contains train/frames, train/masks, val/frames and val/masks. Frames are reduced to
about half their size, so that two CPU cores suffice; published lightweight networks use
`--data.size 352 480`.

Measured, seed 0: mean IoU of the 11 classes on the 101 validation frames, scored at
360x480 with pooled pixels, is 0.669 after the first stage and 0.669 with the memories
(2 cores of an AMD EPYC, 53 minutes of processor time, 2026-11-25).
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
        name="camvid",
        data=DataConfig(
            dataset="camvid",
            size=(224, 288),
            num_classes=12,
            flip_vertical=False,
            scale=(0.75, 1.5),
            photometric=0.3,
        ),
        model=ModelConfig(),
        optim=OptimConfig(
            lr=5e-4,
            drop_epochs=(12,),
            warmup_steps=30,
            cross_entropy_weight=0.5,
            clip_norm=5.0,
        ),
        train=TrainConfig(
            batch_size=4,
            stages=(
                StageConfig("single frame", 16, train="single_frame"),
                StageConfig("memory", 4, train="memory", cached_views=4),
            ),
            eval_every_epochs=16,
        ),
    )
