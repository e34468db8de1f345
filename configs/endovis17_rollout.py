"""EndoVis 2017 by sequences: admission is on in training, every labelled frame scores.

The single-frame network first; then sequences of 12 frames go through the same scan as
a video does, with the thresholds calibrated at the start of the stage. Gradients reach
back 4 frames, and one such piece's maps are held at a time. Batches of 4 sequences cost
about what the paper's 16 clips do. Else as configs/endovis17.py.

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
