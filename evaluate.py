"""Evaluates a trained network: whole videos, causally, with its memory on.

    python evaluate.py --checkpoint runs/endovis15/fold0-seed0
    python evaluate.py --fold 2

The checkpoint says which network and which videos; `--fold 2` alone means the newest
run of configs/endovis17.py on that fold. Prints the tables and writes results.json,
results.md, frames.csv and overlays. For research use; not a medical device.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dmnet_jax.command_line import exit_with_error, load_config
from dmnet_jax.config import Config, from_json


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to evaluate, on what.

    Attributes:
        checkpoint: Run directory. Empty: the newest run of `config` on `fold`.
        config: Recipe whose runs are looked through.
        fold: Which fold's run.
        which: Newest (the finished network), or best on the validation videos.
        videos: Videos to evaluate instead of the run's validation videos.
        root: Dataset folder, if it has moved.
        out: Where results go; empty: RUN/evaluation.
        seed: Of the memory's random reads.
    """

    checkpoint: str = ""
    config: str = "configs/endovis17.py"
    fold: int = 0
    which: Literal["newest", "best"] = "newest"
    videos: tuple[str, ...] = ()
    root: str = ""
    out: str = ""
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = Annotated[Flags, tyro.conf.OmitArgPrefixes]
    flags = tyro.cli(parser, prog="evaluate.py", description=__doc__, args=argv)
    try:
        evaluate(flags)
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def newest_run(config: Config, fold: int) -> Path:
    """The run directory of a fold that was written to last.

    Raises:
        FileNotFoundError: there is none; tells the command that makes one.
    """
    folder = config.run_directory.parent
    runs = [run for run in folder.glob(f"fold{fold}-seed*") if run.is_dir()]
    if not runs:
        raise FileNotFoundError(
            f"{folder}: no run of fold {fold}; train one with "
            f"python train.py --config configs/{config.name}.py --data.fold {fold}"
        )
    return max(runs, key=lambda run: (run / "checkpoints").stat().st_mtime)


def evaluate(flags: Flags) -> None:
    """Loads, evaluates, prints and writes."""
    from dmnet_jax import evaluation, models, results
    from dmnet_jax.checkpoint import load_variables
    from dmnet_jax.datasets import open_videos

    run = Path(flags.checkpoint or newest_run(load_config(flags.config), flags.fold))
    variables, about = load_variables(run, flags.which)
    config = from_json(json.dumps(about["config"]))
    data = dataclasses.replace(config.data, root=flags.root or config.data.root)
    names = list(flags.videos or about["val_videos"])
    seen = sorted(set(names) & set(about["train_videos"]))
    if seen:
        raise ValueError(
            f"{run} was trained on {', '.join(seen)}; evaluate it on other videos"
        )
    videos = open_videos(data, names)
    network = models.build(config)

    out = Path(flags.out or run / "evaluation")
    overlays = results.Overlays(out / "overlays", videos)
    found = evaluation.evaluate(
        network, variables, videos, seed=flags.seed, on_frame=overlays
    )
    overlays.finish()
    results.write_results(out, found, videos.classes, about)
    print(results.tables(found, videos.classes))
    print(f"\n{run} ({flags.which}): results, tables and overlays in {out}")


if __name__ == "__main__":
    sys.exit(main())
