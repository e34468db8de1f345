"""EndoVis 2017, instrument types: the paper's recipe (section 3, Table 1).

Four folds, `--fold 0` to 3, or `--fold all`. Clips of 5 local and 4 past frames at
512x640, Adam 1e-4 with L2 1e-4, a tenth of it from epoch 70 of 100, batches of 16 with
synchronized batch norm. `--data.root` is the folder with
instrument_dataset_1 to 8 as distributed (register at the challenge's site).

    python train.py --config configs/endovis17.py --data.root DIR --fold 2
    python evaluate.py --fold 2
    python train.py --config configs/endovis17.py --data.root DIR --fold all --repeat 5

Half the cross-entropy is added to the paper's Dice loss. Dice alone, on rendered types
and single frames, predicted background everywhere by step 30: gradient 0.00, IoU 0
(also with `--optim.warmup-steps 40`; 2 cores of an AMD EPYC, 2026-11-25). With the
cross-entropy the loss falls from 0.98 to 0.13 in 540 steps (`--train.epochs 30`).

    python -m data_pipelines.synthetic --out DIR --frames 12 --size 128x160
    python train.py --config configs/endovis17.py --data.root DIR --data.size 96 128 \\
        --train.batch-size 4 --train.epochs 6 --model.local none \\
        --model.no-global-memory --optim.cross-entropy-weight 0

The paper (its own network and evaluation): mIoU 53.89, mDice 61.03. Not measured here:
the archives need registration.
"""

from dmnet_jax.config import Config, DataConfig, OptimConfig


def get_config() -> Config:
    return Config(
        name="endovis17",
        data=DataConfig(dataset="endovis17", num_classes=8),
        optim=OptimConfig(cross_entropy_weight=0.5),
    )
