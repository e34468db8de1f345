"""Evaluates a trained network on whole videos, causally, with its memory.

    python evaluate.py --checkpoint runs/endovis15/fold0-seed0
    python evaluate.py --fold 2
    python evaluate.py --fold all

The installed command is `dmnet-evaluate`. The checkpoint determines the network and the
videos. `--fold 2` evaluates the newest run of the recipe endovis17 on that fold. With
`--fold all`, the newest run of each fold is evaluated, and the scores are averaged.
Prints the tables and writes results.json, results.md, frames.csv and overlays.

    python evaluate.py --checkpoint RUN --corrupt bursts --controls

scores disturbed video instead (smoke, blood, darkness, blur, ... for 1 to 12 frames at
a time) and writes bursts.json, bursts.md and bursts.csv; docs/bursts.md explains them.
For research use; not a medical device.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program_name
from dmnet_jax.config import Config, load_config
from dmnet_jax.training.cross_validation import Fold, select_folds, write_average


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to evaluate, and how.

    Attributes:
        checkpoint: Run directory or .safetensors file. Empty: the newest run of
            `config` on `fold`.
        config: Recipe whose runs are searched: the name of a shipped one, a Python
            file, or a saved JSON file.
        fold: Fold whose run is evaluated, or "all". Default: the recipe's fold.
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        videos: Videos to evaluate instead of the run's validation videos.
        root: Dataset folder, if it has moved.
        out: Folder for the results. Empty: RUN/evaluation, and WORKDIR/NAME/evaluation
            for the average of all folds.
        score_at: Size at which to score: that of the stored labels (EndoVis: the whole
            cropped frame), or the network's input size, as DMNet's and MF-TAPNet's code
            does.
        enlarge: How to resize logits to that size. DMNet's code uses "nearest" at
            "input".
        tolerance_px: Tolerance in pixels of the normalized surface distance.
        seed: Seed of the memory's random reads.
        corrupt: Score disturbed video instead of the original videos.
        corrupt_seed: Seed of the disturbances.
        corrupt_passes: Passes over each video, each with different disturbances.
        corrupt_kinds: Kinds of disturbances. Default: all.
        controls: Also score the network without its memory and with wrong memories, and
            simple averages of its single frames.
    """

    checkpoint: str = ""
    config: str = "endovis17"
    fold: Fold = None
    which: Literal["newest", "best"] = "newest"
    videos: tuple[str, ...] = ()
    root: str = ""
    out: str = ""
    score_at: Literal["label", "input"] = "label"
    enlarge: Literal["bilinear", "nearest"] = "bilinear"
    tolerance_px: float = 5.0
    seed: int = 0
    corrupt: Literal["none", "bursts"] = "none"
    corrupt_seed: int = 0
    corrupt_passes: int = 4
    corrupt_kinds: tuple[str, ...] = ()
    controls: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python evaluate.py"),
        description=__doc__ or "",
    )
    try:
        if flags.controls and flags.corrupt == "none":
            raise ValueError("--controls needs --corrupt bursts")
        if flags.checkpoint:
            if flags.fold is not None:
                raise ValueError("--checkpoint and --fold exclude each other; drop one")
            evaluate(Path(flags.checkpoint), flags)
            return 0
        config = load_config(flags.config)
        runs = [
            newest_run(config, fold, flags.config)
            for fold in select_folds(config, flags.fold)
        ]
        if len(runs) == 1:
            evaluate(runs[0], flags)
            return 0
        folder = Path(flags.out or config.run_directory.parent / "evaluation")
        written = []
        for run in runs:
            out = str(folder / run.name) if flags.out else ""
            written.append(evaluate(run, dataclasses.replace(flags, out=out)))
            print()
        if flags.corrupt == "none":
            print(write_average(folder, written))
            print(f"\nsummary.json and summary.md: {folder}")
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def newest_run(config: Config, fold: int, recipe: str) -> Path:
    """Returns the newest run directory of a fold.

    Args:
        config: config of the recipe.
        fold: number of the fold.
        recipe: the value of `--config`, for the error message.

    Raises:
        FileNotFoundError: there is none; names the command that trains one.
    """
    folder = config.run_directory.parent
    saved = list(folder.glob(f"fold{fold}-seed*/checkpoints"))
    if not saved:
        train = "dmnet-train" if program_name("") else "python train.py"
        raise FileNotFoundError(
            f"{folder}: no run of fold {fold}; train one with "
            f"{train} --config {recipe} --fold {fold}"
        )
    return max(saved, key=lambda path: path.stat().st_mtime).parent


def evaluate(run: Path, flags: Flags) -> Path:
    """Evaluates a run, and prints and writes the results; returns their folder."""
    from data_pipelines.sources import DATASETS
    from dmnet_jax import evaluation
    from dmnet_jax.checkpoint import provenance
    from dmnet_jax.checkpoint.runs import load_run, output_folder
    from dmnet_jax.datasets import check_masks, open_videos
    from dmnet_jax.evaluation import results

    scoring = evaluation.Scoring(
        flags.score_at, flags.enlarge, flags.tolerance_px, flags.seed
    )
    network, variables, config, about = load_run(run, flags.which)
    data = dataclasses.replace(config.data, root=flags.root or config.data.root)
    videos = open_videos(data, flags.videos or about["val_videos"])
    try:
        provenance.check_unseen(about, videos)
    except ValueError as error:
        raise ValueError(f"{run} {error}") from None
    check_masks(data, None, videos)

    out = Path(flags.out or output_folder(run) / "evaluation")
    if flags.corrupt == "bursts":
        from dmnet_jax.evaluation.bursts import command

        others = None
        if flags.controls and len(videos.videos) == 1:
            others = command.training_videos(data, about)
        options = command.BurstOptions(
            flags.corrupt_seed,
            flags.corrupt_passes,
            flags.corrupt_kinds,
            flags.controls,
        )
        print(
            command.run(
                network, variables, videos, others, options, scoring, about, out
            )
        )
        print(f"\n{run} ({flags.which}): bursts.json, bursts.md, bursts.csv in {out}")
        return out
    overlays = results.Overlays(out / "overlays", videos)
    result = evaluation.evaluate(
        network, variables, videos, scoring=scoring, on_frame=overlays
    )
    overlays.finish()
    results.write_results(out, result, videos.classes, about)
    print(results.tables(result, videos.classes))
    dataset = DATASETS[data.dataset]
    if dataset.published:
        print(f"\n{dataset.name}: most papers report the protocol {dataset.protocol}")
    print(f"\n{run} ({flags.which}): results, tables and overlays in {out}")
    return out


if __name__ == "__main__":
    sys.exit(main())
