"""EndoVis 2017, trained on sequences with active admission; all frames are scored.

The first stage trains the single-frame network. The second stage processes sequences of
12 frames by the same scan as a video, with thresholds calibrated at the start of the
stage. Gradients are truncated after 4 frames, which limits the activations that are
kept. Batches of 4 sequences cost about as much as the paper's 16 clips. Otherwise like
configs/endovis17.py.

    python train.py --config configs/endovis17_rollout.py --data.root DIR --fold 2

Not measured on the real data: access to the archives requires registration.
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
