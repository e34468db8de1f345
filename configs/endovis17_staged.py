"""EndoVis 2017 in stages: the single-frame network, then its memories, then everything.

The order of the authors' release: the memory modules train for 20 epochs with the rest
frozen, then all weights at half the learning rate. While the encoder is frozen, each
frame is encoded only once, under four fixed augmentations (20 GB on disk for 1350
frames of 512x640; `cached_views` 0 encodes in every clip and needs no disk). Otherwise
as configs/endovis17.py.

    python train.py --config configs/endovis17_staged.py --data.root DIR --fold 2

Not measured on the real data: the archives need registration. configs/endovis15.py is
the same recipe on EndoVis 2015.
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
