"""python -m dmnet_jax.experiments NAME: one experiment a name."""

import sys
from collections.abc import Sequence

from dmnet_jax.command_line import exit_with_error
from dmnet_jax.experiments import zero_shot

EXPERIMENTS = {"zero-shot": zero_shot.main}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = ", ".join(EXPERIMENTS)
    if not arguments or arguments[0] not in EXPERIMENTS:
        exit_with_error(f"name an experiment first: {known} (then --help)")
    return EXPERIMENTS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
