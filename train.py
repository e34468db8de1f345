"""Trains a network by a recipe: `python train.py --help`, or `dmnet-train --help`.

    python train.py --config configs/synthetic.py

The command itself is in dmnet_jax/cli/train.py.
"""

import sys

from dmnet_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
