"""EndoVis 2018, instrument parts: the paper's recipe (section 3, Table 1).

Like configs/endovis17.py, for shaft, wrist and claspers. `--data.root` is the folder
that contains seq_1 to seq_16 as distributed, or a prepared folder. The paper trains on
12 sequences and validates on 3 that it does not name; 5, 9 and 15 are this project's
choice.

    python train.py --config configs/endovis18.py --data.root DIR
    python train.py --config configs/endovis18.py --data.root DIR \\
        --data.split challenge --data.test-root TEST
    python train.py --config configs/endovis18.py --data.root DIR --data.split isinet

The split of the challenge trains on all 15 sequences and tests on the 4 sequences of
the test archive, which are different procedures and must be in a separate folder. For
the 12 classes of the scene, use `--data.task all --data.num-classes 12`.

The paper reports mIoU 67.50 and mDice 77.53 on the four test sequences. Not measured on
the real data: access to the archives requires registration.
"""

from dataclasses import replace

from dmnet_jax.config import Config, DataConfig, load_config


def get_config() -> Config:
    return replace(
        load_config("endovis17"),
        name="endovis18",
        data=DataConfig(dataset="endovis18", task="parts", num_classes=4),
    )
