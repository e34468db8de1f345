"""Benchmarks: python -m dmnet_jax.benchmark training --help"""

import sys
from collections.abc import Sequence

from dmnet_jax.benchmark import training


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["training"]:
        return training.main(arguments[1:])
    print("usage: python -m dmnet_jax.benchmark training [--help]", file=sys.stderr)
    return 0 if arguments in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main())
