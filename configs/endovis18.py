"""EndoVis 2018, instrument parts: the paper's recipe (section 3, Table 1).

As configs/endovis17.py, on shaft, wrist and claspers. `--data.root` is the folder that
holds seq_1 to seq_16 as distributed. Validation sequences 5, 9 and 15 are our choice:
the paper names none.

    python train.py --config configs/endovis18.py --data.root DIR

The paper: mIoU 67.50, mDice 77.53 on the four test sequences. Not measured here.
"""

from dmnet_jax.config import Config, DataConfig

VALIDATION = (5, 9, 15)
SEQUENCES = tuple(k for k in range(1, 17) if k != 8)


def get_config() -> Config:
    return Config(
        name="endovis18",
        data=DataConfig(
            dataset="endovis18",
            task="parts",
            num_classes=4,
            train=tuple(f"seq_{k}" for k in SEQUENCES if k not in VALIDATION),
            val=tuple(f"seq_{k}" for k in VALIDATION),
        ),
    )
