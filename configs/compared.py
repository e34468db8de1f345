"""One recipe for every network of Table 1: that of configs/endovis17.py.

The same frames, augmentation, loss, optimizer, schedule and number of clips for each;
clips have as many earlier frames as the network looks at. Encoders start from ImageNet
if `--model.pretrained` gives torchvision's file; compare only networks that all do, or
none (`none`): a VGG without batch norm loses most by starting at random.

    python train.py --config configs/compared.py --data.root DIR --fold 2 \\
        --model.name raunet --name compared_raunet
    python -m dmnet_jax.tables table1 --config configs/compared.py --data.root DIR

Not measured on the real data: the archives need registration.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    return replace(load_config("endovis17"), name="compared")
