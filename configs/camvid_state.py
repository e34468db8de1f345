"""CamVid with a prediction state that bridges corrupted frames.

The stages of configs/endovis15_state.py on the data of configs/camvid.py. Training
frames are one second apart, validation frames 1/15 of a second, so the state is trained
on faster motion than it is tested on.

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
            stages=(config.train.stages[0], state.train.stages[1]),
            eval_every_epochs=config.train.eval_every_epochs,
        ),
    )
