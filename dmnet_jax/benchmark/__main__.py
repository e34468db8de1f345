"""Runs the benchmark of live steps, or that named by the first argument.

python -m dmnet_jax.benchmark
python -m dmnet_jax.benchmark training
python -m dmnet_jax.benchmark gpu
"""

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
