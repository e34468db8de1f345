"""Prepares a dataset: `python -m data_pipelines.prepare --dataset NAME ...`."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from data_pipelines.command_line import fail, parse_flags, program_name, size_or
from data_pipelines.prepare.progress import ProgressBar
from data_pipelines.prepare.run import prepare
from data_pipelines.sources import DATASETS, PREPARED, Request
from data_pipelines.sources.dataset import MaskValues

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[PREPARED]


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to prepare.

    Attributes:
        dataset: Layout of the raw data.
        raw: The raw folder, or zip or tar archives.
        out: Folder to create.
        size: Height and width of stored images, or "stored" to keep their size.
            Default: 512x640 for EndoVis, else stored.
        task: Classes to store, such as types, parts or all.
        subset: "test" for the test archives (endovis17, endovis18).
        masks: Name of the mask folders.
        mask_values: Meaning of mask values (folder, endovis15): class;
            binary: 0 and 255 are classes 0 and 1; colors: RGB colors of classes.json.
        format: Encoding of stored images.
        on_unknown: Treatment of pixels whose color belongs to no class (endovis18).
        allow_missing: Accept frames without a mask (endovis15, folder).
        threads: Number of frames read at a time.
    """

    dataset: Name
    raw: tuple[str, ...]
    out: str
    size: Annotated[tuple[int, int] | str | None, size_or("stored")] = None
    task: str = ""
    subset: Literal["train", "test"] = "train"
    masks: str = ""
    mask_values: MaskValues = "class"
    format: Literal["png", "jpeg"] = "png"
    on_unknown: Literal["error", "ignore", "nearest"] = "error"
    allow_missing: bool = False
    threads: int = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status (2 for a user's error)."""
    args = parse_flags(
        argv,
        Flags,
        prog=program_name("python -m data_pipelines.prepare"),
        description="Pack a raw dataset into records that are fast to read. "
        "For research use; not a medical device.",
    )
    dataset = DATASETS[args.dataset]
    bar = ProgressBar()
    try:
        if args.threads < 1:
            raise ValueError(f"--threads {args.threads}: use at least 1")
        default_size = dataset.size if args.size is None else None
        request = Request(
            dataset=args.dataset,
            task=args.task or (dataset.tasks[0] if dataset.tasks else ""),
            masks=args.masks or dataset.masks,
            size=args.size if isinstance(args.size, tuple) else default_size,
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
        return fail(error)
    print(f"{args.out}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
