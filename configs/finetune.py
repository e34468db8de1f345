"""Your own labeled videos, starting from the shipped network, on a laptop.

Fine-tunes weights that already segment instruments (`--model.pretrained rendered`).
Trains the single-frame network alone: the prediction state is that of the shipped
network, which knows only predictions and the looks of frames, so it fits any network
and any classes (docs/memory.md has what it gains on others). configs/endovis15_state.py
trains a state, configs/endovis17.py is the recipe of the paper, with its memories.

    python train.py --config configs/finetune.py --name mine --data.root ROOT \\
        --data.num-classes 2 --data.train video1 video2 --data.val video3

Takes minutes on two CPU cores for a few hundred frames. The result depends on your
data; no number is reported.
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
        name="finetune",
        data=DataConfig(
            dataset="folder",
            size=(256, 320),
            num_classes=2,
            scale=(0.75, 1.35),
            photometric=0.5,
        ),
        model=ModelConfig(
            local="none", global_memory=False, state=True, pretrained="rendered"
        ),
        optim=OptimConfig(
            lr=5e-4,
            drop_epochs=(7,),
            warmup_steps=30,
            cross_entropy_weight=0.5,
            clip_norm=5.0,
        ),
        train=TrainConfig(
            batch_size=4,
            stages=(StageConfig("single frame", 10, train="single_frame"),),
            eval_every_epochs=5,
        ),
    )
