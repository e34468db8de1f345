"""EndoVis 2017 with memories of what was predicted.

Not the paper's network. As in configs/endovis15_state.py, a single-frame network that
starts from the shipped one is trained first, with bursts of corrupted frames, then the
memories alone: the prediction state, and a global memory of masks, since
the classes are instrument types, which a frame may not show (configs/hidden_tips.py).
They are trained on cached outputs of the network: at 512x640, each of the six views of
1350 frames takes 4 GB of disk while the stage runs.

    python train.py --config configs/endovis17_state.py --data.root DIR --fold 2
    python evaluate.py --checkpoint runs/endovis17_state/fold2-seed0 --corrupt bursts

`--data.size 256 320 --train.batch-size 4` trains on a CPU. Not measured on the real
data: access to the archives requires registration. docs/memory.md has the results on
EndoVis 2015 and on rendered video.
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
        model=replace(load_config("hidden_tips").model, global_size=4, num_reads=4),
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
