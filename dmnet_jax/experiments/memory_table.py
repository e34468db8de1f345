"""The table of `memory-value`: means over divisions, deviations over seeds, and gains.

A division is a split of the videos into training and validation videos.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.corruption import KINDS
from dmnet_jax.evaluation.bursts.averages import FAMILIES
from dmnet_jax.evaluation.bursts.benchmark import (
    CURRENT,
    EMPTIED,
    FOREIGN,
    NETWORK,
    SHUFFLED,
    SINGLE,
)
from dmnet_jax.evaluation.bursts.summary import POSITIONS
from dmnet_jax.metrics import deviation, format_table, mean_known
from dmnet_jax.report.charts import bars, document

SINGLE_FRAME = "single_frame"
"""Name of the recipe that trains without a memory for the same number of epochs."""
COLUMNS = {
    "corrupted": "corrupted",
    "trained kinds": "trained_kinds",
    "unseen kinds": "unseen_kinds",
    "clean between": "clean_between",
    "clean video": "clean_video",
    "recovery": "recovery_frames",
}
WRONG = (EMPTIED, CURRENT, SHUFFLED, FOREIGN)
_POINTS = 100.0


class Cell(NamedTuple):
    """The scores of one trained network.

    Attributes:
        division: name of the division.
        recipe: name of the recipe.
        seed: seed of the training.
        rows: "rows" of its `bursts.json`.
    """

    division: str
    recipe: str
    seed: int
    rows: Mapping[str, Any]


class Score(NamedTuple):
    """Mean over seeds and divisions, and deviation over seeds of the seeds' means."""

    mean: float
    deviation: float


def summary(cells: Sequence[Cell], recipe: str) -> dict[str, Any]:
    """Computes the scores of all rows over all cells, and the gains of a memory.

    The rows are the network of each recipe, under the name of the recipe, and the
    controls of `recipe`, under their own names.

    Args:
        cells: one cell per recipe, division and seed.
        recipe: recipe whose memory is evaluated.

    Returns:
        A JSON object with "recipe", "divisions", "seeds"; "rows": by name, the columns,
        "by_kind" and "by_position", each score as [mean, deviation]; and "gains": the
        recipe's gain in points over each other row, as [mean, deviation, whether the
        mean is above twice the deviation].

    Raises:
        ValueError: cells are missing.
    """
    # Row -> (seed, division) -> scores.
    scores: dict[str, dict[tuple[int, str], Mapping[str, Any]]] = {}
    for cell in cells:
        for name, row in cell.rows.items():
            if cell.recipe != recipe and name != NETWORK:
                continue
            title = cell.recipe if name == NETWORK else name
            scores.setdefault(title, {})[cell.seed, cell.division] = row
    seeds = sorted({cell.seed for cell in cells})
    divisions = list(dict.fromkeys(cell.division for cell in cells))
    expected = {(seed, division) for seed in seeds for division in divisions}
    for name in [recipe, *(cell.recipe for cell in cells)]:
        if missing := expected - scores.get(name, {}).keys():
            raise ValueError(f"{name}: no score of (seed, division) {sorted(missing)}")
    hidden = {name for names in FAMILIES.values() for name in names}
    shown = [name for name in scores if name not in hidden]

    def score(name: str, *path: str) -> list[float]:
        return [*_over_seeds(scores[name], seeds, divisions, *path)]

    rows = {
        name: {
            **{column: score(name, field) for column, field in COLUMNS.items()},
            "by_kind": {kind: score(name, "by_kind", kind) for kind in KINDS},
            "by_position": {at: score(name, "by_position", at) for at in POSITIONS},
        }
        for name in shown
    }
    gains = {}
    for other in shown:
        if other != recipe:
            gains[other] = _gain(scores[recipe], scores[other], seeds, divisions)
    return {
        "recipe": recipe,
        "divisions": divisions,
        "seeds": seeds,
        "rows": rows,
        "gains": gains,
    }


def _over_seeds(
    cells: Mapping[tuple[int, str], Mapping[str, Any]],
    seeds: Sequence[int],
    divisions: Sequence[str],
    *path: str,
) -> Score:
    table = np.full((len(seeds), len(divisions)), np.nan)
    for (seed, division), row in cells.items():
        value: Any = row
        for name in path:
            value = None if value is None else value.get(name)
        if value is not None:
            table[seeds.index(seed), divisions.index(division)] = value
    return _score(table)


def _score(table: np.ndarray) -> Score:
    """Computes the score of values [seeds, divisions]; NaN where unknown."""
    seed_means = mean_known(table, axis=1)
    return Score(float(mean_known(seed_means)), deviation(seed_means))


def _gain(
    row: Mapping[tuple[int, str], Mapping[str, Any]],
    other: Mapping[tuple[int, str], Mapping[str, Any]],
    seeds: Sequence[int],
    divisions: Sequence[str],
) -> dict[str, Any]:
    """Computes the gain of a row in points, paired by seed and division."""
    gains = {}
    for column, field in COLUMNS.items():
        if column == "recovery":
            continue
        table = np.full((len(seeds), len(divisions)), np.nan)
        for i, seed in enumerate(seeds):
            for j, division in enumerate(divisions):
                key = seed, division
                a, b = (scores.get(key, {}).get(field) for scores in (row, other))
                if a is not None and b is not None:
                    table[i, j] = _POINTS * (a - b)
        mean, spread = _score(table)
        gains[column] = [mean, spread, bool(mean > 2 * spread)]
    return gains


def tables(result: Mapping[str, Any]) -> str:
    """Formats the result of `summary` as Markdown tables."""
    rows, recipe = result["rows"], result["recipe"]
    names = sorted(rows, key=lambda name: _order(name, recipe))
    body = [
        [_title(name), *(_cell(rows[name][column]) for column in COLUMNS)]
        for name in names
    ]
    num_seeds = len(result["seeds"])
    parts = [
        f"{recipe}: mean IoU over {', '.join(result['divisions'])} and {num_seeds} "
        f"seed{'s' * (num_seeds != 1)}, pixels of a division pooled; ± is the "
        "deviation over seeds. Recovery in frames.\n\n"
        + format_table(body, ["row", *COLUMNS])
    ]
    columns = [column for column in COLUMNS if column != "recovery"]
    gains = [
        [_title(name), *(_gain_cell(result["gains"][name][c]) for c in columns)]
        for name in names
        if name in result["gains"]
    ]
    parts.append(
        "Gain in points over each row (*: above twice its deviation over seeds)\n\n"
        + format_table(gains, ["over", *columns])
    )
    for title, group in (("kind", "by_kind"), ("frame of the burst", "by_position")):
        heads = list(rows[recipe][group])
        body = [
            [_title(name), *(_cell(rows[name][group][head]) for head in heads)]
            for name in names
        ]
        parts.append(
            f"Corrupted frames by {title}\n\n" + format_table(body, ["row", *heads])
        )
    if SINGLE_FRAME not in rows:
        parts.append(f"{SINGLE}: the network after the first stage of {recipe}.")
    return "\n\n".join(parts)


def page(result: Mapping[str, Any]) -> str:
    """Formats the result of `summary` as a self-contained HTML document."""
    rows, recipe = result["rows"], result["recipe"]
    names = sorted(rows, key=lambda name: _order(name, recipe))

    def chart(title: str, *path: str) -> str:
        data = []
        for name in names:
            value: Any = rows[name]
            for step in path:
                value = value[step]
            mean, spread = value
            data.append((_title(name), mean, (mean - spread, mean + spread)))
        return bars(data, title=title)

    charts = [
        chart("Corrupted frames, mean IoU", "corrupted"),
        chart("Kinds not used in training", "unseen kinds"),
        chart("Clean frames between bursts", "clean between"),
        *(
            chart(f"Frame {at} of a burst", "by_position", at)
            for at in rows[recipe]["by_position"]
        ),
    ]
    title = f"Value of the memory of {recipe}"
    text = f"<pre>{escape(tables(result))}</pre>"
    return document(title, f"<h1>{escape(title)}</h1>{''.join(charts)}{text}")


def _order(name: str, recipe: str) -> tuple[int, str]:
    """Sorts: recipe, single frame, other networks, averages, wrong memories."""
    if name in WRONG:
        return 4, str(WRONG.index(name))
    rank = {recipe: 0, SINGLE_FRAME: 1, SINGLE: 1}.get(name)
    averages = ("last mask", "last clean mask (told)", *FAMILIES)
    return rank if rank is not None else 3 if name in averages else 2, name


def _title(name: str) -> str:
    return "single frame, equal epochs" if name == SINGLE_FRAME else name


def _cell(score: Sequence[float]) -> str:
    mean, spread = score
    if math.isnan(mean):
        return "n/a"
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def _gain_cell(gain: Sequence[Any]) -> str:
    mean, spread, significant = gain
    if math.isnan(mean):
        return "n/a"
    text = f"{mean:+.1f}" if math.isnan(spread) else f"{mean:+.1f} ± {spread:.1f}"
    return text + " *" * significant
