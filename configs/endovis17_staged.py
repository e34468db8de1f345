"""EndoVis 2017 in stages: the single-frame network, the memories, then all weights.

The stages are those of the authors' release. After the single-frame network, the memory
modules are trained for 20 epochs with all other weights frozen, then all weights with
half the learning rate. While the encoder is frozen, each frame is encoded only once
under each of four fixed augmentations, which takes 20 GB of disk for 1350 frames of
512x640. With `cached_views` 0, frames are encoded for every clip and no disk is needed.
Otherwise like configs/endovis17.py.

    python train.py --config configs/endovis17_staged.py --data.root DIR --fold 2

Not measured on the real data: access to the archives requires registration.
configs/endovis15.py has the same first two stages on EndoVis 2015.
"""

from dataclasses import replace

from dmnet_jax.config import Config, StageConfig, TrainConfig, load_config


def get_config() -> Config:
    return replace(
        load_config("endovis17"),
        name="endovis17_staged",
        train=TrainConfig(
            stages=(
                StageConfig("single frame", 100, train="single_frame"),
                StageConfig("memory", 20, train="memory", cached_views=4),
                StageConfig("all", 80, lr_scale=0.5),
            ),
        ),
    )
