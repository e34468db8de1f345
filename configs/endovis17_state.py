"""EndoVis 2017 with a prediction state that bridges corrupted frames.

Not the paper's network. As in configs/endovis15_state.py, a single-frame network that
starts from the shipped one is trained first, with bursts of corrupted frames, then the
state alone. The state is trained on cached outputs of the network: at 512x640, each of
the six views of 1350 frames takes 4 GB of disk while the stage runs.

    python train.py --config configs/endovis17_state.py --data.root DIR --fold 2
    python evaluate.py --checkpoint runs/endovis17_state/fold2-seed0 --corrupt bursts

`--data.size 256 320 --train.batch-size 4` trains on a CPU. Not measured on the real
data: access to the archives requires registration. docs/memory.md has the results on
EndoVis 2015.
"""

from dataclasses import replace

from dmnet_jax.config import Config, StageConfig, load_config


def get_config() -> Config:
    config, state = load_config("endovis17"), load_config("endovis15_state")
    return replace(
        config,
        name="endovis17_state",
        data=replace(
            config.data,
            scale=state.data.scale,
            photometric=state.data.photometric,
            corrupt=state.data.corrupt,
        ),
        model=state.model,
        optim=replace(state.optim, drop_epochs=(30,)),
        train=replace(
            state.train,
            batch_size=8,
            stages=(
                StageConfig("single frame", 40, train="single_frame"),
                replace(state.train.stages[1], epochs=4),
            ),
            eval_every_epochs=20,
        ),
    )
