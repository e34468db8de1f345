"""What a network's memory is worth on disturbed video: one table over folds and seeds.

Every cell is a run directory of its own (division, recipe, seed): trained, then scored
by `evaluate.py --corrupt bursts --controls`. What is there is not done again.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data_pipelines.io.files import make_folder, write_text
from dmnet_jax.cli.arguments import exit_with_error, parse_command, program_name
from dmnet_jax.config import Config, ConfigError, StageConfig, load_config, validate
from dmnet_jax.experiments.memory_table import SINGLE_FRAME, Cell, page, summary, tables

HELP = """Measures what a recipe's memory is worth on disturbed video.

    python -m dmnet_jax.experiments memory-value --config endovis15_state \\
        --data.root DIR --divisions leave-one-out

Trains the recipe, the single frame with the same corruptions and as many epochs, and
the recipes of --also, with several seeds on every division into training and validation
videos; scores all on the same disturbed frames, with all controls; writes
memory_value.md, .json and .html. Started again, it goes on where it was. docs/bursts.md
says what the columns mean. For research use; not a medical device."""

NAMES = "memory_value.json", "memory_value.md", "memory_value.html"


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is compared, how often, and where it goes.

    Attributes:
        divisions: "recipe" (its own videos or fold), "folds" (all of the dataset's), or
            "leave-one-out" (each video of data.train and data.val validates once).
        seeds: How many, from train.seed on.
        also: Further recipes whose networks are rows, such as the paper's DMNet; the
            data, the size and the batch are those of --config.
        equal_steps: Train the single frame for as many epochs as well.
        passes: Over each disturbed video.
        out: Folder of the runs and the table; empty: WORKDIR/memory_value/NAME.
    """

    divisions: Literal["recipe", "folds", "leave-one-out"] = "recipe"
    seeds: int = 3
    also: tuple[str, ...] = ()
    equal_steps: bool = True
    passes: int = 4
    out: str = ""


class Planned(NamedTuple):
    """A cell to be filled: `config` says where its run is."""

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
            for planned in plan(config, flags, folder):
                found = fill(planned, flags.passes, stop)
                if found is None:
                    return stop.exit_code
                cells.append(found)
        found = summary(cells, config.name)
        write(folder, found)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    print("\n" + tables(found))
    print(f"\n{', '.join(NAMES)}: {folder}")
    return 0


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Writes the three files of a `memory_table.summary`."""
    # Not needed for --help, which is to answer at once.
    from dmnet_jax.evaluation.results import write_json

    make_folder(folder)
    write_json(folder / NAMES[0], found)
    write_text(folder / NAMES[1], tables(found) + "\n")
    write_text(folder / NAMES[2], page(found))


def plan(config: Config, flags: Flags, folder: Path) -> Iterator[Planned]:
    """The cells, seed by seed, so that a stopped table has all rows of some seeds.

    Raises:
        ValueError: a recipe is none, or has no such divisions.
    """
    if flags.seeds < 1 or flags.passes < 1:
        raise ConfigError("--seeds and --passes must be at least 1")
    recipes = {config.name: config}
    if flags.equal_steps:
        recipes[SINGLE_FRAME] = single_frame(config)
    for name in flags.also:
        other = load_config(name)
        if other.name in recipes:
            raise ConfigError(f"--also {name}: {other.name!r} is a row already")
        recipes[other.name] = dataclasses.replace(
            other,
            data=config.data,
            train=dataclasses.replace(
                other.train,
                batch_size=config.train.batch_size,
                seed=config.train.seed,
            ),
        )
    divided = list(divisions(config, flags.divisions))
    for seed in range(config.train.seed, config.train.seed + flags.seeds):
        for division, data in divided:
            for name, recipe in recipes.items():
                train = dataclasses.replace(recipe.train, seed=seed)
                workdir = str(folder / division)
                cell = dataclasses.replace(
                    recipe, name=name, data=data, train=train, workdir=workdir
                )
                yield Planned(division, name, seed, validate(cell))


def divisions(
    config: Config, kind: Literal["recipe", "folds", "leave-one-out"]
) -> Iterator[tuple[str, Any]]:
    """(name, data configuration) of each division into training and validation."""
    data = config.data
    if kind == "recipe":
        yield f"fold{data.fold}", data
    elif kind == "folds":
        from dmnet_jax.training.cross_validation import select_folds

        for fold in select_folds(config, "all"):
            yield f"fold{fold}", dataclasses.replace(data, fold=fold)
    else:
        videos = [*data.train, *data.val]
        if len(videos) < 2 or not (data.train and data.val):
            raise ConfigError(
                "--divisions leave-one-out divides the videos of data.train and "
                "data.val; name them, or use --divisions folds"
            )
        for video in videos:
            rest = tuple(name for name in videos if name != video)
            yield video, dataclasses.replace(data, train=rest, val=(video,))


def single_frame(config: Config) -> Config:
    """The recipe without a memory: all its epochs train the single frame.

    The same corruptions, and steps that the memory would have had: what is left of the
    memory's gain is the memory's.
    """
    stages = config.resolved_stages
    epochs = sum(stage.epochs for stage in stages)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, local="none", global_memory=False, state=False
        ),
        train=dataclasses.replace(
            config.train,
            stages=(StageConfig("single frame", epochs, train="single_frame"),),
        ),
    )


def fill(planned: Planned, passes: int, stop: Any) -> Cell | None:
    """Trains and scores a cell as far as it is not; None if a stop was asked for."""
    from dmnet_jax.cli import evaluate, train
    from dmnet_jax.training.cross_validation import is_finished

    run = planned.config.run_directory
    print(f"\n{planned.division}, {planned.recipe}, seed {planned.seed}: {run}")
    if not is_finished(planned.config):
        train.train(planned.config, run, stop)
        if stop.requested:
            return None
    report = run / "bursts" / "bursts.json"
    if not _is_of(report, run, passes):
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
    return Cell(*planned[:3], rows=json.loads(report.read_bytes())["rows"])


def _is_of(report: Path, run: Path, passes: int) -> bool:
    """Whether the report is of the run as it is now, by the same settings."""
    try:
        found = json.loads(report.read_bytes())
        results = json.loads((run / "results.json").read_bytes())
        bursts, weights = found["bursts"], found["weights_sha256"]
        same = bursts["passes"] == passes and bursts["controls"]
        return bool(same and weights == results["weights_sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
