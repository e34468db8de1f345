"""Fine-tunes the shipped network on a folder of labeled videos.

    python examples/train_on_your_folder.py ROOT NUM_CLASSES TRAIN_VIDEO... VAL_VIDEO

ROOT/VIDEO/frames contains images and ROOT/VIDEO/masks contains PNG masks of the same
names, whose values are classes; 0 is the background. The last video is used for
validation. Equivalent to

    python train.py --config finetune --name mine --data.root ROOT \\
        --data.num-classes NUM_CLASSES --data.train TRAIN_VIDEO... --data.val VAL_VIDEO
"""

import sys
from dataclasses import replace
from pathlib import Path

from dmnet_jax.cli.train import train
from dmnet_jax.config import Config, load_config, validate
from dmnet_jax.process import StopRequest


def make_config(root: str, num_classes: int, videos: list[str]) -> Config:
    """Returns the shipped recipe `finetune` with the videos of a folder."""
    config = load_config("finetune")
    data = replace(
        config.data,
        root=root,
        num_classes=num_classes,
        train=tuple(videos[:-1]),
        val=tuple(videos[-1:]),
    )
    return replace(config, name="mine", data=data)


def run(config: Config) -> Path:
    """Trains or resumes a run and returns its directory."""
    config = validate(config)
    with StopRequest() as stop:  # Ctrl-C saves a checkpoint before it stops
        train(config, config.run_directory, stop)
    return config.run_directory


if __name__ == "__main__":
    if len(sys.argv) < 5:
        raise SystemExit(__doc__)
    run(make_config(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
