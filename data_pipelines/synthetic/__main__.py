"""Writes a synthetic dataset: `python -m data_pipelines.synthetic --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from data_pipelines.io.environment import program
from data_pipelines.synthetic.endovis17 import ENDOVIS17_FOLDERS, write_endovis17
from data_pipelines.synthetic.endovis18 import ENDOVIS18_SEQUENCES, write_endovis18


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        prog=program("python -m data_pipelines.synthetic"),
        description="Write synthetic surgical video in the layout of a public dataset.",
    )
    parser.add_argument("--out", required=True, help="folder to create, or to resume")
    parser.add_argument(
        "--layout",
        choices=("endovis17", "endovis18"),
        default="endovis17",
        help="dataset whose layout is written (default: endovis17)",
    )
    parser.add_argument("--sequences", help="numbers, such as 1,2,3 (default: all)")
    parser.add_argument(
        "--frames",
        type=int,
        help="frames of each sequence (default: as in the dataset)",
    )
    parser.add_argument("--size", default="1024x1280", help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--rate", type=float, help="frames per second")
    parser.add_argument("--seed", type=int, default=0, help="each gives other videos")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    args = parser.parse_args(argv)
    if args.layout == "endovis17":
        write, known, frames, rate = write_endovis17, tuple(ENDOVIS17_FOLDERS), 225, 2.0
    else:
        write, known, frames, rate = write_endovis18, ENDOVIS18_SEQUENCES, 149, 1.0
    try:
        write(
            args.out,
            seed=args.seed,
            sequences=known if args.sequences is None else _numbers(args.sequences),
            frames=frames if args.frames is None else args.frames,
            size=_size(args.size),
            rate=rate if args.rate is None else args.rate,
            threads=args.threads,
            log=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: complete")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"--sequences {text}: use numbers with commas, such as 1,2,3"
        ) from None


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size {text}: use HEIGHTxWIDTH, such as 256x320")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
