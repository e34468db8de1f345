"""Rendered surgery: rendering, training and evaluation in minutes, without data.

Renders three sequences similar to those of EndoVis 2017, eight frames a second, trains
the shipped network on every fourth frame of two of them to segment the parts of
instruments, and evaluates it on the third. Its memory is the shipped prediction state,
which needs no training.

    python train.py --config configs/synthetic.py
    python evaluate.py --checkpoint runs/synthetic/fold0-seed0 --corrupt bursts
    python -m dmnet_jax.experiments memory-value --config synthetic

The second command shows what the memory is worth on disturbed frames; the last one
repeats both with three seeds, and trains the single frame as well. It measured 0.435
mean IoU on disturbed frames, 0.304 for the single frame, and 0.83 on clean video for
both (15 minutes of one core of an Intel Xeon, 2026-11-28; docs/results.md). The first
one takes 2 to 4 minutes on 2 cores, installation included.
"""

from dmnet_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    StageConfig,
    SyntheticConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="synthetic",
        data=DataConfig(
            dataset="synthetic",
            root="datasets/synthetic",
            task="parts",
            num_classes=4,
            size=(128, 160),
            train=("instrument_dataset_2", "instrument_dataset_4"),
            val=("instrument_dataset_3",),
            frame_step=4,
            synthetic=SyntheticConfig(
                sequences=(2, 3, 4), frames=160, size=(256, 320), rate=8.0
            ),
        ),
        model=ModelConfig(
            local="none", global_memory=False, state=True, pretrained="rendered"
        ),
        optim=OptimConfig(
            lr=5e-4, cross_entropy_weight=0.5, warmup_steps=20, clip_norm=5.0
        ),
        train=TrainConfig(
            batch_size=4,
            stages=(StageConfig("single frame", 8, train="single_frame"),),
            eval_every_epochs=8,
        ),
    )
