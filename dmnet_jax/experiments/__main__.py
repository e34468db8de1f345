"""Runs an experiment by name: python -m dmnet_jax.experiments NAME."""

import sys
from collections.abc import Sequence
from importlib import import_module

from dmnet_jax.cli.arguments import exit_with_error, program_name

EXPERIMENTS = ("few-labels", "hidden-tips", "memory-value", "zero-shot")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = ", ".join(EXPERIMENTS)
    if arguments and arguments[0] in ("-h", "--help"):
        print(
            f"usage: {program_name('python -m dmnet_jax.experiments')} NAME [OPTIONS]"
        )
        print(f"\nNAME is one of {known}; NAME --help lists its options.")
        return 0
    if not arguments or arguments[0] not in EXPERIMENTS:
        exit_with_error(f"the first argument must be an experiment: {known}")
    module = arguments[0].replace("-", "_")
    return import_module(f"dmnet_jax.experiments.{module}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
