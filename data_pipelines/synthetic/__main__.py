"""Writes a synthetic dataset: `python -m data_pipelines.synthetic --out DIR`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from data_pipelines.command_line import fail, parse_flags, program_name
from data_pipelines.synthetic.endovis17 import ENDOVIS17_FOLDERS, write_endovis17
from data_pipelines.synthetic.endovis18 import ENDOVIS18_SEQUENCES, write_endovis18
from data_pipelines.synthetic.hidden_tips import write_hidden_tips


class Layout(NamedTuple):
    """The function that writes a layout, and its default arguments."""

    write: Callable[..., None]
    sequences: tuple[int, ...]
    frames: int
    rate: float


LAYOUTS = {
    "endovis17": Layout(write_endovis17, tuple(ENDOVIS17_FOLDERS), 225, 2.0),
    "endovis18": Layout(write_endovis18, ENDOVIS18_SEQUENCES, 149, 1.0),
    "hidden-tips": Layout(write_hidden_tips, tuple(range(140)), 48, 8.0),
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to write.

    Attributes:
        out: Folder to create, or to resume.
        layout: Dataset whose layout is written; hidden-tips is a folder of videos in
            which only the past tells an instrument's type.
        sequences: Numbers, such as 1,2,3. Default: all, or 140 of hidden-tips.
        frames: Frames per sequence. Default: as in the dataset.
        size: Height and width in pixels.
        rate: Frames per second. Default: as in the dataset.
        seed: Seed; every seed gives different videos.
        threads: Number of rendering threads.
    """

    out: str
    layout: Literal["endovis17", "endovis18", "hidden-tips"] = "endovis17"
    sequences: str | None = None
    frames: int | None = None
    size: tuple[int, int] = (1024, 1280)
    rate: float | None = None
    seed: int = 0
    threads: int = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (2 for a user's error)."""
    args = parse_flags(
        argv,
        Flags,
        prog=program_name("python -m data_pipelines.synthetic"),
        description="Write synthetic surgical video in the layout of a public dataset.",
    )
    layout = LAYOUTS[args.layout]
    numbers = layout.sequences
    try:
        layout.write(
            args.out,
            seed=args.seed,
            sequences=numbers if args.sequences is None else _numbers(args.sequences),
            frames=layout.frames if args.frames is None else args.frames,
            size=args.size,
            rate=layout.rate if args.rate is None else args.rate,
            threads=args.threads,
            log=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError) as error:
        return fail(error)
    print(f"{args.out}: complete")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(
            f"--sequences {text}: use numbers with commas, such as 1,2,3"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
