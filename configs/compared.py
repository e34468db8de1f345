"""The networks of the paper's Table 1 with one common recipe, on EndoVis 2017.

Based on configs/endovis17.py. All networks use the same frames, augmentation, loss,
optimizer, schedule and number of clips; a clip has as many earlier frames as the
network uses. Encoders start from ImageNet weights if `--model.pretrained` names
torchvision's file. Compare only networks that all start this way or that all start from
random weights (`none`), because a VGG without batch norm suffers most from the latter.

    python train.py --config configs/compared.py --data.root DIR --fold 2 \\
        --model.name raunet --name compared_raunet
    python -m dmnet_jax.tables table1 --config configs/compared.py --data.root DIR

Not measured on the real data: access to the archives requires registration.
docs/networks.md has the size and time of each network.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    return replace(load_config("endovis17"), name="compared")
