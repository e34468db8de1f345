"""The share of hidden instruments whose type a network remembers."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipelines.frames import DataError, FrameSource, read_gray
from data_pipelines.synthetic.hidden_tips import EVIDENCE, NOT_SCORED, VISIBLE
from dmnet_jax.cli.arguments import exit_with_error, parse_flags, program_name
from dmnet_jax.experiments.cells import write_report
from dmnet_jax.metrics import format_table
from dmnet_jax.report.charts import Line, chart, document

HELP = """Scores runs on instruments whose type only the past tells.

    python -m data_pipelines.synthetic --layout hidden-tips --size 128x160 --out DIR
    python train.py --config configs/hidden_tips.py --data.root DIR
    python -m dmnet_jax.experiments hidden-tips \\
        --checkpoints runs/hidden_tips/fold0-seed0

The score is the share of an instrument's pixels with the correct type: while the
tip is visible, and while it is hidden, by the number of frames since it was last
visible. The controls are the single frame (the network without its memory modules),
averages of it, and wrong memories. For research use; not a medical device."""

NETWORK, SINGLE = "network", "single frame"
EMPTIED, CURRENT, SHUFFLED, FOREIGN = (
    "emptied memory",
    "current frame as memory",
    "shuffled memory",
    "another video's memory",
)

GROUPS = {
    "visible": (0, 0),
    "hidden": (1, 254),
    "1-4 frames": (1, 4),
    "5-8": (5, 8),
    "9-16": (9, 16),
    "17+": (17, 254),
}
"""First and last number of frames since the tip was visible."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """What to score.

    Attributes:
        checkpoints: Run directories, trained on hidden tips.
        root: Folder of the videos, if it has moved.
        which: Checkpoint: newest (the finished network), or best on the validation
            videos.
        out: Folder of the report. Empty: nothing is written.
    """

    checkpoints: tuple[str, ...] = ()
    root: str = ""
    which: Literal["newest", "best"] = "newest"
    out: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        argv,
        Flags(),
        prog=program_name("python -m dmnet_jax.experiments hidden-tips"),
        description=HELP,
    )
    try:
        if not flags.checkpoints:
            raise ValueError("--checkpoints is missing; name one or more runs")
        result = {
            run: score_run(run, flags.root, flags.which) for run in flags.checkpoints
        }
        print(tables(result))
        if flags.out:
            out = Path(flags.out)
            write_report(out, "hidden_tips", result, tables(result), page(result))
    except (ValueError, OSError) as error:
        exit_with_error(error)
    return 0


def score_run(run: str, root: str = "", which: Any = "newest") -> dict[str, Any]:
    """Scores a run on its validation videos.

    Args:
        run: run directory.
        root: folder of the videos. Empty: that of the run's config.
        which: "newest", "best" or a step.

    Returns:
        For each row, by number of frames since the tip was visible (0: visible),
        as text: [correct pixels, pixels].

    Raises:
        ValueError: the run or the videos cannot be read.
    """
    # Imported here, so that --help and command-line errors are fast.
    from dmnet_jax.checkpoint.runs import load_run
    from dmnet_jax.datasets import open_videos

    trained = load_run(run, which)
    data = trained.config.data
    if root:
        data = dataclasses.replace(data, root=root)
    source = open_videos(data, trained.about["val_videos"])
    scores: dict[str, dict[int, np.ndarray]] = {}
    for video in range(len(source.videos)):
        folder = Path(data.root) / source.videos[video].name / EVIDENCE
        for row, label, frame in predictions(
            trained.model, trained.variables, source, video
        ):
            truth = source.label(video, frame)
            if truth is None:
                continue
            known = read_evidence(folder, source.videos[video].frames[frame], truth)
            count(scores.setdefault(row, {}), label, truth, known)
    return {
        row: {str(age): counts.tolist() for age, counts in sorted(ages.items())}
        for row, ages in scores.items()
    }


def predictions(model: Any, variables: Any, source: FrameSource, video: int) -> Any:
    """Yields (row, label uint8 [h, w], frame) for all rows and frames of a video.

    Wrong memories are an empty one, and those after the previous frame: the network's
    own with shuffled positions, and that of the next video. Averages are of the single
    frame, the network without its memory modules.
    """
    import jax

    from dmnet_jax.evaluation.bursts.averages import Seen, hold_clean, rules
    from dmnet_jax.evaluation.bursts.benchmark import Roll
    from dmnet_jax.evaluation.bursts.controls import shuffled
    from dmnet_jax.evaluation.videos import Scoring
    from dmnet_jax.nn.resizing import resized_argmax

    roll = Roll(model, variables, source, video, Scoring(), False)
    alone = Roll(model.single_frame(), variables, source, video, Scoring(), False)
    other = (video + 1) % len(source.videos)
    memory = foreign = roll.fresh
    # No frame is corrupted, so the oracle's row would be that of the single frame.
    combining = [rule for rule in rules(False) if rule.update is not hold_clean]
    states: dict[str, Any] = {}
    length = min(len(source.videos[v].frames) for v in (video, other))
    for frame in range(len(source.videos[video].frames)):
        memories = {NETWORK: memory}
        if not roll.forgetful:
            key = jax.random.fold_in(roll.key, frame)
            wrong = {SHUFFLED: shuffled(memory, key), FOREIGN: foreign}
            memories = wrong | memories | {EMPTIED: roll.fresh}
        image = source.image(video, frame)
        result = roll.see(image, list(memories.values()), repeated=not roll.forgetful)
        memory = dict(zip(memories, result.memories, strict=True))[NETWORK]
        if not roll.forgetful and frame < length and other != video:
            foreign = roll.see(source.image(other, frame), [foreign]).memories[0]
        logits = dict(zip(memories, result.logits, strict=True))
        if result.repeated is not None:
            logits[CURRENT] = result.repeated
        (logits[SINGLE],) = alone.see(image, [alone.fresh]).logits
        seen = Seen(logits[SINGLE], features=None, corrupted=False)
        for name, update in combining:
            states[name], logits[name] = update(states.get(name), seen)
        truth = source.label(video, frame)
        size = image.shape[:2] if truth is None else truth.shape
        for row, scores in logits.items():
            yield row, np.asarray(resized_argmax(scores, size)[0]), frame


def read_evidence(folder: Path, frame: str, truth: np.ndarray) -> np.ndarray:
    """Reads what can be known of each pixel of a frame.

    Raises:
        DataError: the image is missing or has another size than the label.
    """
    path = folder / f"{frame}.png"
    if not path.is_file():
        raise DataError(
            [f"{path}: no such file; write the videos with --layout hidden-tips"]
        )
    known = read_gray(path)
    if known.shape != truth.shape:
        raise DataError([f"{path}: is {known.shape}, the label is {truth.shape}"])
    return known


def count(
    ages: dict[int, np.ndarray], label: np.ndarray, truth: np.ndarray, known: np.ndarray
) -> None:
    """Adds the pixels of a frame to `ages`: age -> int64 [correct, all]."""
    for value in np.unique(known):
        if value == NOT_SCORED:
            continue
        pixels = known == value
        correct = int((label[pixels] == truth[pixels]).sum())
        age = int(value) - VISIBLE
        ages[age] = ages.get(age, np.zeros(2, np.int64)) + (correct, pixels.sum())


def accuracy(ages: Mapping[str, Sequence[int]], first: int, last: int) -> float:
    """Returns the share of correct pixels of some ages; NaN without pixels."""
    correct, total = 0, 0
    for age, counts in ages.items():
        if first <= int(age) <= last:
            correct, total = correct + counts[0], total + counts[1]
    return correct / total if total else math.nan


def tables(result: Mapping[str, Any]) -> str:
    """Formats the scores of all runs as Markdown tables, and means over the runs."""
    groups: dict[str, list[list[float]]] = defaultdict(list)
    for rows in result.values():
        for row, ages in rows.items():
            groups[row].append([accuracy(ages, *ends) for ends in GROUPS.values()])
    first = [NETWORK, SINGLE, EMPTIED, CURRENT, SHUFFLED, FOREIGN]
    averages = [row for row in groups if row not in first]
    body = []
    for row in sorted(groups, key=(first + averages).index):
        values = np.array(groups[row])
        cells = [f"{value:.3f}" for value in values.mean(0)]
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            cells = [f"{c} ± {s:.3f}" for c, s in zip(cells, spread, strict=True)]
        body.append([row, *cells])
    runs = len(result)
    return (
        "Share of an instrument's pixels with the correct type, while its tip is "
        "visible and by the number of frames since it was; mean over "
        f"{runs} run{'s' * (runs != 1)}.\n\n" + format_table(body, ["row", *GROUPS])
    )


def page(result: Mapping[str, Any]) -> str:
    """Formats the scores as a self-contained HTML document with curves over time."""
    charts = []
    for run, rows in result.items():
        for row in (NETWORK, SINGLE):
            ages = sorted(int(age) for age in rows[row])
            values = [accuracy(rows[row], age, age) for age in ages]
            charts.append(
                chart(
                    [Line(ages, values)],
                    title=f"{Path(run).parent.name}, {row}: correct type",
                    x_title="frames since the tip was visible",
                    limits={"all hidden": accuracy(rows[row], *GROUPS["hidden"])},
                    least=0.5,
                )
            )
    title = "Hidden tips"
    text = f"<pre>{escape(tables(result))}</pre>"
    return document(title, f"<h1>{title}</h1>{''.join(charts)}{text}")
