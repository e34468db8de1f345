"""Prepares a dataset: `python -m data_pipelines.prepare --dataset NAME ...`."""

import argparse
import sys
from collections.abc import Sequence

from data_pipelines.io.environment import program
from data_pipelines.io.names import escape_what_streams_cannot_hold, shown
from data_pipelines.prepare.progress import ProgressBar
from data_pipelines.prepare.run import prepare
from data_pipelines.sources import DATASETS, PREPARED, Request
from data_pipelines.sources.folder import MASK_VALUES


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        prog=program("python -m data_pipelines.prepare"),
        description="Pack a raw dataset into records that are fast to read. "
        "For research use; not a medical device.",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        choices=PREPARED,
        help="layout of the raw data",
    )
    parser.add_argument(
        "--raw", required=True, nargs="+", help="the raw folder, or zip or tar archives"
    )
    parser.add_argument("--out", required=True, help="folder to create")
    parser.add_argument(
        "--size",
        help="HEIGHTxWIDTH of stored images, or 'stored' to keep theirs (default: "
        "512x640 for EndoVis, else stored)",
    )
    parser.add_argument("--task", help="classes to store, such as types, parts or all")
    parser.add_argument(
        "--subset",
        choices=("train", "test"),
        default="train",
        help="train, or test for the test archives (endovis17, endovis18)",
    )
    parser.add_argument("--masks", help="name of the mask folders")
    parser.add_argument(
        "--mask-values",
        choices=MASK_VALUES,
        default="class",
        help="meaning of mask values (folder, endovis15): class; binary: 0 and 255 are "
        "classes 0 and 1; colors: RGB colors of classes.json",
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpeg"),
        default="png",
        help="encoding of stored images (default: png)",
    )
    parser.add_argument(
        "--on-unknown",
        choices=("error", "ignore", "nearest"),
        default="error",
        help="pixels whose color belongs to no class (endovis18)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="accept frames without a mask (endovis15, folder)",
    )
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    args = parser.parse_args(argv)
    escape_what_streams_cannot_hold()
    layout = DATASETS[args.dataset]
    bar = ProgressBar()
    try:
        if args.threads < 1:
            raise ValueError(f"--threads {args.threads}: use at least 1")
        request = Request(
            dataset=args.dataset,
            task=args.task or (layout.tasks[0] if layout.tasks else ""),
            masks=args.masks or layout.masks,
            size=layout.size if args.size is None else _size(args.size),
            encoding=args.format,
            on_unknown=args.on_unknown,
            allow_missing=args.allow_missing,
            subset=args.subset,
            mask_values=args.mask_values,
        )
        prepare(
            args.raw,
            args.out,
            request,
            threads=args.threads,
            log=bar.log,
            progress=bar.show,
        )
    except (ValueError, OSError) as error:
        bar.clear()
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2
    print(f"{args.out}: complete")
    return 0


def _size(text: str) -> tuple[int, int] | None:
    if text == "stored":
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise ValueError(f"--size {text}: use HEIGHTxWIDTH, such as 512x640, or stored")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
