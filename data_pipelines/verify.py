"""Checks prepared data for damage: `python -m data_pipelines.verify DIR`."""

import argparse
import sys
from collections.abc import Sequence

from data_pipelines.io.environment import program
from data_pipelines.io.names import escape_what_streams_cannot_hold, shown
from data_pipelines.prepare.report import describe
from data_pipelines.prepared import read_manifest, verify


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status (2 for damage or a mistake)."""
    parser = argparse.ArgumentParser(
        prog=program("python -m data_pipelines.verify"),
        description="Decode all prepared frames and compare them with the manifest. "
        "For research use; not a medical device.",
    )
    parser.add_argument("dir", help="prepared folder")
    args = parser.parse_args(argv)
    escape_what_streams_cannot_hold()
    try:
        videos, frames = verify(args.dir, lambda line: print(line, flush=True))
    except (ValueError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2
    print("\n".join(describe(read_manifest(args.dir))))
    print(f"{args.dir}: {videos} videos, {frames} frames, all as in the manifest")
    return 0


if __name__ == "__main__":
    sys.exit(main())
