"""Only the memory stage of configs/endovis15.py, for a network trained before.

Reproduces the rows of the paper's Table 2a on EndoVis 2015, with a common base network:

    base="--config configs/endovis15.py --model.local none --model.no-global-memory"
    python train.py $base --name endovis15_base --data.root DIR
    run="--config configs/endovis15_memory.py --data.root DIR
         --train.start-from runs/endovis15_base/fold0-seed0"
    python train.py $run --name endovis15_ela --model.no-global-memory
    python train.py $run --name endovis15_aga --model.local none
    python train.py $run --name endovis15_both

`--data.train clip1 clip3 --data.val clip2`, for all commands, tests on another clip.

Measured with `--train.stages.0.epochs 3 --train.stages.0.cached-views 2`, seed 0: mean
IoU over three folds is 0.788 for the base, 0.765 with ELA, 0.769 with AGA and 0.784
with both (2 cores of an AMD EPYC, 10 minutes for the last fold, 2026-11-25; see
docs/results.md).
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config = load_config("endovis15")
    memory = replace(config.train, stages=config.train.stages[1:])
    return replace(config, name="endovis15_memory", train=memory)
