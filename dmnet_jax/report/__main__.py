"""Writes a report about a run: one self-contained HTML file.

    python -m dmnet_jax.report RUN
    python -m dmnet_jax.report RUN --no-speed

Training curves, scores under every protocol, bars by class and video, confusion matrix,
best, median and worst frame, the memory over time, speed on this machine, provenance.
Reports the results of evaluate.py in RUN/evaluation if there are any, otherwise those
of the run. Writes RUN/report.html. For research use; not a medical device.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from data_pipelines.io.files import write_text
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program_name


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to report.

    Attributes:
        run: Run directory.
        out: File to write. Empty: RUN/report.html.
        speed: Measure the step's speed on this machine (takes about a minute).
    """

    run: tyro.conf.Positional[str] = ""
    out: str = ""
    speed: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.report"),
        description=__doc__ or "",
    )
    try:
        print(write(flags))
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def write(flags: Flags) -> Path:
    """Writes the report of a run; returns its path."""
    from dmnet_jax.report.page import page
    from dmnet_jax.report.record import read_run

    if not flags.run:
        raise ValueError(
            "the run directory is missing; pass, for example, "
            "runs/synthetic/fold0-seed0"
        )
    record = read_run(Path(flags.run))
    speed = None
    if flags.speed:
        from dmnet_jax.report.speed import measure

        speed = measure(flags.run)
    out = Path(flags.out or Path(flags.run) / "report.html")
    write_text(out, page(record, speed))
    return out


if __name__ == "__main__":
    sys.exit(main())
