"""The value of a network's memory on disturbed video, over folds and seeds.

Every cell (division, recipe, seed) of the table has its own run directory. It is
trained and then scored as by `evaluate.py --corrupt bursts --controls`. Finished parts
are not repeated.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dmnet_jax.cli.arguments import exit_with_error, parse_command, program_name
from dmnet_jax.config import Config, ConfigError, StageConfig, load_config, validate
from dmnet_jax.experiments.cells import Divisions, divisions, train_cell, write_report
from dmnet_jax.experiments.memory_table import SINGLE_FRAME, Cell, page, summary, tables

HELP = """Measures the value of a recipe's memory on disturbed video.

    python -m dmnet_jax.experiments memory-value --config endovis15_state \\
        --data.root DIR --divisions leave-one-out

Trains the recipe, a single-frame network with the same corruptions and number of
epochs, and the recipes of --also, with several seeds on every division of the videos
into training and validation videos. Scores all of them on the same disturbed frames,
with all controls, and writes memory_value.md, .json and .html. Run the same command
again to resume. docs/bursts.md explains the columns. For research use; not a medical
device."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to compare.

    Attributes:
        divisions: "recipe" (its own videos or fold), "folds" (all folds of the
            dataset), or "leave-one-out" (each video of data.train and data.val
            validates once).
        seeds: Number of seeds, from train.seed on.
        also: Further recipes to compare with, such as the paper's DMNet. Their data,
            size and batch size are those of --config.
        equal_steps: Also train the single-frame network for the same number of epochs.
        passes: Passes over each video, each with different disturbances.
        out: Folder of the runs and the table. Empty: WORKDIR/memory_value/NAME.
    """

    divisions: Divisions = "recipe"
    seeds: int = 3
    also: tuple[str, ...] = ()
    equal_steps: bool = True
    passes: int = 4
    out: str = ""


class CellPlan(NamedTuple):
    """A cell of the table and the config of its run."""

    division: str
    recipe: str
    seed: int
    config: Config


def main(argv: Sequence[str] | None = None) -> int:
    config, flags = parse_command(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.experiments memory-value"),
        description=HELP,
    )
    from dmnet_jax.process import StopRequest

    folder = Path(flags.out or Path(config.workdir) / "memory_value" / config.name)
    try:
        cells = []
        with StopRequest() as stop:
            for cell_plan in plan(config, flags, folder):
                cell = compute_cell(cell_plan, flags.passes, stop)
                if cell is None:
                    return stop.exit_code
                cells.append(cell)
        result = summary(cells, config.name)
        print("\n" + tables(result))
        write_report(folder, "memory_value", result, tables(result), page(result))
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def plan(config: Config, flags: Flags, folder: Path) -> Iterator[CellPlan]:
    """Yields the cells seed by seed, so that a stopped run completes whole seeds.

    Raises:
        ValueError: a recipe is invalid, or does not have the divisions.
    """
    if flags.seeds < 1 or flags.passes < 1:
        raise ConfigError("--seeds and --passes must be at least 1")
    recipes = {config.name: config}
    if flags.equal_steps:
        recipes[SINGLE_FRAME] = single_frame(config)
    for name in flags.also:
        other = load_config(name)
        if other.name in recipes:
            raise ConfigError(f"--also {name}: {other.name!r} is already compared")
        recipes[other.name] = dataclasses.replace(
            other,
            data=config.data,
            train=dataclasses.replace(
                other.train,
                batch_size=config.train.batch_size,
                seed=config.train.seed,
            ),
        )
    all_divisions = list(divisions(config, flags.divisions))
    for seed in range(config.train.seed, config.train.seed + flags.seeds):
        for division, data in all_divisions:
            for name, recipe in recipes.items():
                train = dataclasses.replace(recipe.train, seed=seed)
                workdir = str(folder / division)
                cell = dataclasses.replace(
                    recipe, name=name, data=data, train=train, workdir=workdir
                )
                yield CellPlan(division, name, seed, validate(cell))


def single_frame(config: Config) -> Config:
    """Returns a recipe without a memory that trains for the same number of epochs.

    Corruptions and the number of steps are the same, so a remaining gain is due to the
    memory. Stages with the same number of corruptions per frame become one.
    """
    stages = tuple(
        StageConfig(
            "single frame",
            sum(stage.epochs for stage in group),
            train="single_frame",
            corruptions=corruptions,
        )
        for corruptions, group in itertools.groupby(
            config.resolved_stages, lambda stage: stage.corruptions
        )
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, local="none", global_memory=False, state=False
        ),
        train=dataclasses.replace(config.train, stages=stages),
    )


def compute_cell(cell: CellPlan, passes: int, stop: Any) -> Cell | None:
    """Trains and scores a cell, unless that is done; None if a stop was requested."""
    from dmnet_jax.cli import evaluate

    run = cell.config.run_directory
    print(f"\n{cell.division}, {cell.recipe}, seed {cell.seed}: {run}")
    if not train_cell(cell.config, stop):
        return None
    report = run / "bursts" / "bursts.json"
    if not _is_current(report, run, passes):
        evaluate.evaluate(
            run,
            evaluate.Flags(
                checkpoint=str(run),
                out=str(report.parent),
                corrupt="bursts",
                corrupt_passes=passes,
                controls=True,
            ),
        )
        if stop.requested:
            return None
    rows = json.loads(report.read_bytes())["rows"]
    return Cell(cell.division, cell.recipe, cell.seed, rows)


def _is_current(report: Path, run: Path, passes: int) -> bool:
    """Returns whether a report is of the run's weights, with the same settings."""
    try:
        content = json.loads(report.read_bytes())
        results = json.loads((run / "results.json").read_bytes())
        bursts, weights = content["bursts"], content["weights_sha256"]
        same = bursts["passes"] == passes and bursts["controls"]
        return bool(same and weights == results["weights_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
