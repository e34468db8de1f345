"""Trains a network with a recipe: `python train.py --help`, or `dmnet-train --help`.

    python train.py --config configs/synthetic.py

The command is implemented in dmnet_jax/cli/train.py.
"""

import sys

from dmnet_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
