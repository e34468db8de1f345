"""The shipped fast network: half of the channels, for real time on a CPU.

Trains on the stream of rendered scenes of `configs/pretrain.py` with `model.width` 128.
It starts from the encoder of the shipped network, its teacher, and also learns the
teacher's predictions (`training.distillation`). No real images are used.

    python train.py --config configs/pretrain_fast.py

The shipped weights took 45 minutes on 2 cores of an Intel Xeon with other work
(1200 steps of 8 frames, 2026-11-27). Their prediction state is that of the wide
network.

docs/model_card.md has the scores on real video.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config = load_config("pretrain")
    return replace(
        config,
        name="pretrain_fast",
        data=replace(
            config.data, synthetic=replace(config.data.synthetic, epoch_steps=100)
        ),
        model=replace(
            config.model, width=128, value_channels=64, pretrained="imagenet"
        ),
        optim=replace(config.optim, drop_epochs=(7, 10), warmup_steps=50),
        train=replace(
            config.train,
            epochs=12,
            batch_size=8,
            eval_every_epochs=6,
            teacher="rendered",
        ),
    )
