"""EndoVis 2018, instrument parts, with a prediction state.

Like configs/endovis17_state.py, on the data of configs/endovis18.py.

    python train.py --config configs/endovis18_state.py --data.root DIR
    python evaluate.py --checkpoint runs/endovis18_state/fold0-seed0 --corrupt bursts

Not measured on the real data: access to the archives requires registration.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config, parts = load_config("endovis17_state"), load_config("endovis18").data
    return replace(
        config,
        name="endovis18_state",
        data=replace(
            config.data,
            dataset=parts.dataset,
            task=parts.task,
            num_classes=parts.num_classes,
        ),
    )
