"""Runs the benchmark of live steps, or that named by the first argument.

python -m dmnet_jax.benchmark
python -m dmnet_jax.benchmark training
python -m dmnet_jax.benchmark gpu
python -m dmnet_jax.benchmark networks
python -m dmnet_jax.benchmark profile
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from dmnet_jax.benchmark import live

SUBCOMMANDS = ("training", "gpu", "networks", "profile")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in SUBCOMMANDS:
        module = import_module(f"dmnet_jax.benchmark.{arguments[0]}")
        return module.main(arguments[1:])
    return live.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
