"""One recipe for every network of the paper's Table 1, from configs/endovis17.py.

The same frames, augmentation, loss, optimizer, schedule and number of clips for each;
clips have as many earlier frames as the network uses. Encoders start from ImageNet if
`--model.pretrained` names torchvision's file. Compare only networks that all do, or
none (`none`): a VGG without batch norm loses most from a random start.

    python train.py --config configs/compared.py --data.root DIR --fold 2 \\
        --model.name raunet --name compared_raunet
    python -m dmnet_jax.tables table1 --config configs/compared.py --data.root DIR

Not measured on the real data: the archives need registration.
"""

from dataclasses import replace

from dmnet_jax.config import Config, load_config


def get_config() -> Config:
    return replace(load_config("endovis17"), name="compared")
