"""The memory stage of configs/endovis15.py alone, on a network trained before.

For the rows of the paper's Table 2a, which then share one base network:

    base="--config configs/endovis15.py --model.local none --model.no-global-memory"
    python train.py $base --name endovis15_base --data.root DIR
    run="--config configs/endovis15_memory.py --data.root DIR
         --train.start-from runs/endovis15_base/fold0-seed0"
    python train.py $run --name endovis15_ela --model.no-global-memory
    python train.py $run --name endovis15_aga --model.local none
    python train.py $run --name endovis15_both

`--data.train clip1 clip3 --data.val clip2` (for both) tests on another clip.
docs/results.md has the results of three folds, with `--train.stages.0.epochs 3
--train.stages.0.cached-views 2`.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config = load_config("endovis15")
    memory = replace(config.train, stages=config.train.stages[1:])
    return replace(config, name="endovis15_memory", train=memory)
