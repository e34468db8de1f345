"""Evaluates a run: `python evaluate.py --help`, or `dmnet-evaluate --help`.

    python evaluate.py --checkpoint runs/synthetic/fold0-seed0

The command is implemented in dmnet_jax/cli/evaluate.py.
"""

import sys

from dmnet_jax.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
