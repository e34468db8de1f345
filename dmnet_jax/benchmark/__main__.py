"""Benchmarks: live steps, and with `training` or `gpu` before the flags, those."""

import sys
from collections.abc import Sequence

from dmnet_jax.benchmark import gpu, live, training


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["training"]:
        return training.main(arguments[1:])
    if arguments[:1] == ["gpu"]:
        return gpu.main(arguments[1:])
    return live.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
