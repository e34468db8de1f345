"""Checks prepared data for damage: `python -m data_pipelines.verify DIR`."""

import dataclasses
import sys
from collections.abc import Sequence

from tyro.conf import Positional

from data_pipelines.command_line import fail, parse_flags, program_name
from data_pipelines.prepare.report import describe
from data_pipelines.prepared import read_manifest, verify


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to verify.

    Attributes:
        dir: Prepared folder.
    """

    dir: Positional[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (2 for damage or a user's error)."""
    flags = parse_flags(
        argv,
        Flags,
        prog=program_name("python -m data_pipelines.verify"),
        description="Decode all prepared frames and compare them with the manifest. "
        "For research use; not a medical device.",
    )
    try:
        videos, frames = verify(flags.dir, lambda line: print(line, flush=True))
        print("\n".join(describe(read_manifest(flags.dir))))
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"{flags.dir}: {videos} videos, {frames} frames, all match the manifest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
