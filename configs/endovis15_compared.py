"""One recipe for every network of Table 1, on EndoVis 2015, short enough for two cores.

    python -m dmnet_jax.tables table1 --config configs/endovis15_compared.py \\
        --data.root DIR

As `configs/compared.py`, with the frames and augmentation of `configs/endovis15.py` and
one epoch, 38 steps of 4 clips. docs/results.md has the results.
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
