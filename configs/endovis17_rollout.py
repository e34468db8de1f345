"""EndoVis 2017 on sequences: admission is active, every labeled frame is scored.

First the single-frame network; then sequences of 12 frames go through the same scan as
a video, with thresholds calibrated at the start of the stage. Gradients are propagated
back through 4 frames, and only the maps of 4 frames are kept at a time. Batches of 4
sequences cost about as much as the paper's 16 clips. Otherwise as configs/endovis17.py.

    python train.py --config configs/endovis17_rollout.py --data.root DIR --fold 2

Not measured on the real data: the archives need registration.
"""

from dataclasses import replace

from dmnet_jax.config import Config, StageConfig, TrainConfig, load_config


def get_config() -> Config:
    return replace(
        load_config("endovis17"),
        name="endovis17_rollout",
        train=TrainConfig(
            batch_size=4,
            stages=(
                StageConfig("single frame", 100, train="single_frame"),
                StageConfig("sequences", 20, lr_scale=0.5, recipe="rollout"),
            ),
        ),
    )
