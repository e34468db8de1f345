"""CamVid with a prediction state that bridges corrupted frames.

The stages of configs/endovis15_state.py on the data of configs/camvid.py, with one
corruption on a frame: the network does not know these videos by heart. Labeled training
frames are one second apart, in which a street changes too much for a memory to be of
use, so three quarters of the sequences repeat one frame (`train.rollout_still`).
Validation frames are 1/15 of a second apart.

Measured, the second stage in runs of its own: mean IoU of corrupted frames is 0.374
with the single frame and 0.504 with the state, over three seeds, that of clean video
0.641 with both (docs/memory.md; 18 minutes of one core of an Intel Xeon after 5 for
encoding, 2026-11-28).

    python train.py --config configs/camvid_state.py --data.root DIR
    python evaluate.py --checkpoint runs/camvid_state/fold0-seed0 --corrupt bursts
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    config, state = load_config("camvid"), load_config("endovis15_state")
    return replace(
        config,
        name="camvid_state",
        data=replace(config.data, corrupt=state.data.corrupt),
        model=replace(state.model, pretrained=config.model.pretrained),
        train=replace(
            state.train,
            stages=(
                config.train.stages[0],
                replace(state.train.stages[1], corruptions=1),
            ),
            eval_every_epochs=config.train.eval_every_epochs,
            rollout_stride=1,
            rollout_still=0.75,
        ),
    )
