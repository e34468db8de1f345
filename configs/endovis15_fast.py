"""EndoVis 2015, robotic part, with half of the channels, for real time on a CPU.

The recipe is `configs/endovis15_state.py` with `model.width` 128 instead of 256. The
narrower network starts from the encoder of a trained run of that recipe, its teacher,
and also learns the teacher's predictions (`training.distillation`).

    python train.py --config configs/endovis15_state.py --data.root DIR
    python train.py --config configs/endovis15_fast.py --data.root DIR \
        --train.teacher runs/endovis15_state/fold0-seed0

Single-frame network, one seed: 0.702, 0.838 and 0.785 mean IoU on clips 1, 2 and 3,
where the teachers have 0.746, 0.844 and 0.806, with 43% of the multiply-adds
(2026-11-27). `--model.width 96 --model.value-channels 48` is 2.1 times as fast as 256
channels instead of 1.8; mean of the clips 0.771 with 96 channels, 0.773 with 128, one
seed (2026-11-28; docs/speed.md has all runs).
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config = load_config("endovis15_state")
    return replace(
        config,
        name="endovis15_fast",
        model=replace(
            config.model, width=128, value_channels=64, pretrained="imagenet"
        ),
    )
