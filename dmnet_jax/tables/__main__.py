"""Measures the paper's tables and draws its figures: python -m dmnet_jax.tables."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from data_pipelines.io.files import atomic_write, make_folder
from dmnet_jax.cli.arguments import exit_with_error, parse_command, program_name
from dmnet_jax.config import Config
from dmnet_jax.tables.rows import (
    TABLES,
    Name,
    cell_config,
    chosen,
    encoder_start,
    parts,
)
from dmnet_jax.training.cross_validation import RunFlags, is_finished, select_folds

HELP = """Measures the paper's tables and prints them beside the published numbers.

    python -m dmnet_jax.tables table1 --config configs/compared.py --data.root DIR
    python -m dmnet_jax.tables table2a --config configs/endovis17.py --data.root DIR \\
        --fold all --repeat 5
    python -m dmnet_jax.tables table1 --config configs/compared.py --no-train

table1 compares networks, table2a DMNet's memories, table2b the kinds of its local
memory. Every row trains its own network with the same recipe, in one run directory per
fold and seed; rows with memories share the stage of the single-frame network. Finished
runs are not trained again, and stopped runs resume. Parameters, multiply-adds and the
time per frame on this machine are measured as well. The table is written to
WORKDIR/NAME_tables as .md, .csv and .json.

    python -m dmnet_jax.tables figure2 --config configs/compared.py --data.root DIR
    python -m dmnet_jax.tables figure3 --config configs/compared.py --data.root DIR

figure2 shows predictions of the finished runs of table1 side by side, figure3 the
frames that DMNet's global memory admits along a video. For research use; not a medical
device."""


@dataclasses.dataclass(frozen=True)
class Flags(RunFlags):
    """What to measure.

    Attributes:
        methods: Rows. Default: all; table1 also has ternausnet11, linknet34, raunet and
            td4_psp18.
        train: Train what is missing; otherwise its scores stay empty.
        encoders: Folder of torchvision's files (vgg16-*.pth, ...) with the initial
            weights of VGG and ResNet encoders; otherwise these are random.
        rounds: Frames to time for each network, after a warm-up; 0 for none.
    """

    methods: tuple[str, ...] = ()
    train: bool = True
    encoders: str = ""
    rounds: int = 100


@dataclasses.dataclass(frozen=True)
class FigureFlags:
    """What to show.

    Attributes:
        methods: Columns of figure2, rows of table1. Default: those that are finished.
        frames: Rows of figure2, evenly spaced over the validation videos.
        video: Video of figure3, counted from 0.
    """

    methods: tuple[str, ...] = ()
    frames: int = 4
    video: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = [*TABLES, "figure2", "figure3"]
    name = arguments.pop(0) if arguments and arguments[0] in names else ""
    if not name and not {"-h", "--help"} & {*arguments}:
        exit_with_error(f"the first argument must be one of {', '.join(names)}")
    prog = f"{program_name('python -m dmnet_jax.tables')} {name or 'NAME'}"
    try:
        if name.startswith("figure"):
            config, flags = parse_command(
                arguments, FigureFlags(), prog=prog, description=HELP
            )
            return draw(name, config, flags)
        config, flags = parse_command(arguments, Flags(), prog=prog, description=HELP)
        return make(cast(Name, name), config, flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)


def make(name: Name, config: Config, flags: Flags) -> int:
    """Trains missing runs and writes a table; returns the exit status.

    Raises:
        ValueError: a row, fold or recipe does not exist.
    """
    # Imported here, so that --help and command-line errors are fast.
    from dmnet_jax import models
    from dmnet_jax.machine import describe
    from dmnet_jax.tables import tables, timing

    if flags.rounds < 0:
        raise ValueError(f"--rounds is {flags.rounds}; it must be at least 0")
    rows = chosen(name, flags.methods)
    cells = [cell_config(config, row, flags.encoders) for row in rows]
    folder = _folder(config)
    make_folder(folder)
    if flags.train:
        for row, cell in zip(rows, cells, strict=True):
            status = tables.train_row(cell, row, flags, folder)
            if status:
                print(
                    f"{row.method}: training ended with status {status}",
                    file=sys.stderr,
                )
                return status
    size = config.data.size
    networks = {
        row.key: models.build(cell) for row, cell in zip(rows, cells, strict=True)
    }
    times = timing.frame_times(networks, size, flags.rounds) if flags.rounds else {}
    results = [
        {
            "method": row.method,
            "encoder": encoder_start(cell),
            **tables.scores_of(cell, row, flags),
            **tables.costs_of(networks[row.key], size),
            **(timing.summary(times[row.key]) if row.key in times else {}),
            **tables.printed(row, config.data.dataset),
        }
        for row, cell in zip(rows, cells, strict=True)
    ]
    machine = describe()
    stages = config.resolved_stages
    about = {
        "dataset": config.data.dataset,
        "size": list(config.data.size),
        "folds": ", ".join(map(str, select_folds(config, flags.fold))),
        "repeat": flags.repeat,
        "budget": f"{sum(s.epochs for s in stages)} epochs of batches of "
        f"{config.train.batch_size}",
        "date": machine["date"],
        "hardware": f"{machine['cores']} cores of {machine['cpu']}",
        "rounds": flags.rounds,
        "config": dataclasses.asdict(config),
    }
    print(f"\n{tables.write_table(folder, name, results, about)}")
    print(f"{name}.md, {name}.csv and {name}.json: {folder}")
    return 0


def draw(name: str, config: Config, flags: FigureFlags) -> int:
    """Draws a figure of finished runs; returns the exit status.

    Raises:
        ValueError: a run is not finished, or there is no such row or video.
    """
    from dmnet_jax.tables import figures

    rows = chosen("table1", flags.methods if name == "figure2" else ("dmnet",))
    cells = [cell_config(config, row) for row in rows]
    runs = [
        (row.method, parts(cell, row)[-1])
        for row, cell in zip(rows, cells, strict=True)
    ]
    if name == "figure2" and not flags.methods:
        runs = [(method, run) for method, run in runs if is_finished(run)]
    unfinished = [run.run_directory for _, run in runs if not is_finished(run)]
    if unfinished or not runs:
        folder = unfinished[0] if unfinished else config.workdir
        raise ValueError(f"{folder}: no finished run; train it with table1")
    if flags.frames < 1:
        raise ValueError(f"--frames is {flags.frames}; it must be at least 1")
    folder = _folder(config)
    make_folder(folder)
    if name == "figure2":
        figure = figures.figure2(runs, flags.frames)
    else:
        figure = figures.figure3(runs[0][1], flags.video)
    with atomic_write(folder / f"{name}.png") as fresh:
        figure.save(fresh, format="PNG", dpi=(300, 300))
    print(folder / f"{name}.png")
    return 0


def _folder(config: Config) -> Path:
    return Path(config.workdir) / f"{config.name or 'unnamed'}_tables"


if __name__ == "__main__":
    sys.exit(main())
