"""The networks of the paper's Table 1 with one common recipe, on EndoVis 2015.

Like configs/compared.py, but short enough for two CPU cores: the frames and
augmentation of configs/endovis15.py, for one epoch of 38 steps of 4 clips.

    python -m dmnet_jax.tables table1 --config configs/endovis15_compared.py \\
        --data.root DIR

Measured, seed 0: mean IoU on clip 3 is between 0.068 (LWANet) and 0.717 (DMNet);
docs/results.md has all networks. Training and evaluation take 4 minutes for DMNet and
17 for MF-TAPNet (2 cores of an AMD EPYC, 2026-11-25). Such short runs show that the
networks learn, not which one is best.
"""

from dataclasses import replace

from dmnet_jax.config import Config, TrainConfig, load_config


def get_config() -> Config:
    config = load_config("endovis15")
    return replace(
        config,
        name="endovis15_compared",
        optim=replace(config.optim, drop_epochs=()),
        train=TrainConfig(batch_size=4, epochs=1, eval_every_epochs=1),
    )
