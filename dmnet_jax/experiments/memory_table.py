"""The table of `memory-value`: means over divisions, deviations over seeds, gains."""

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
"""Name of the recipe that trains without a memory for as many epochs."""
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
    """One trained network, scored.

    Attributes:
        division: its validation videos' name.
        recipe: its name.
        seed: of training.
        rows: of `bursts.json`.
    """

    division: str
    recipe: str
    seed: int
    rows: Mapping[str, Any]


class Score(NamedTuple):
    """Mean over seeds and divisions, and the deviation over seeds of their means."""

    mean: float
    deviation: float


def summary(cells: Sequence[Cell], recipe: str) -> dict[str, Any]:
    """Scores of each row over all cells, and the gains of a recipe's memory.

    A row of `recipe`'s bursts has its own name; other recipes' networks have theirs.

    Args:
        cells: one of each division and seed for each recipe.
        recipe: whose memory is asked about.

    Returns:
        JSON: "divisions", "seeds", "recipe"; "rows": for each the columns, "by_kind"
        and "by_position", as [mean, deviation]; "gains": in points over each row that
        the memory has to beat, as [mean, deviation, by more than twice that].

    Raises:
        ValueError: cells are missing.
    """
    of_row: dict[str, dict[tuple[int, str], Mapping[str, Any]]] = {}
    for cell in cells:
        for name, row in cell.rows.items():
            if cell.recipe != recipe and name != NETWORK:
                continue
            title = cell.recipe if name == NETWORK else name
            of_row.setdefault(title, {})[cell.seed, cell.division] = row
    seeds = sorted({cell.seed for cell in cells})
    places = list(dict.fromkeys(cell.division for cell in cells))
    wanted = {(seed, place) for seed in seeds for place in places}
    for name in [recipe, *(cell.recipe for cell in cells)]:
        if missing := wanted - of_row.get(name, {}).keys():
            raise ValueError(f"{name}: no score of (seed, division) {sorted(missing)}")
    hidden = {name for names in FAMILIES.values() for name in names}
    shown = [name for name in of_row if name not in hidden]

    def score(name: str, *path: str) -> list[float]:
        return [*_over_seeds(of_row[name], seeds, places, *path)]

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
            gains[other] = _gain(of_row[recipe], of_row[other], seeds, places)
    return {
        "recipe": recipe,
        "divisions": places,
        "seeds": seeds,
        "rows": rows,
        "gains": gains,
    }


def _over_seeds(
    cells: Mapping[tuple[int, str], Mapping[str, Any]],
    seeds: Sequence[int],
    places: Sequence[str],
    *path: str,
) -> Score:
    table = np.full((len(seeds), len(places)), np.nan)
    for (seed, place), row in cells.items():
        value: Any = row
        for name in path:
            value = None if value is None else value.get(name)
        if value is not None:
            table[seeds.index(seed), places.index(place)] = value
    return _score(table)


def _score(table: np.ndarray) -> Score:
    """Of values [seeds, divisions]; NaN where nothing is known."""
    of_seed = mean_known(table, axis=1)
    return Score(float(mean_known(of_seed)), deviation(of_seed))


def _gain(
    own: Mapping[tuple[int, str], Mapping[str, Any]],
    other: Mapping[tuple[int, str], Mapping[str, Any]],
    seeds: Sequence[int],
    places: Sequence[str],
) -> dict[str, Any]:
    """Points by which a row is better, cell by cell of the same division and seed."""
    found = {}
    for column, field in COLUMNS.items():
        if column == "recovery":
            continue
        table = np.full((len(seeds), len(places)), np.nan)
        for i, seed in enumerate(seeds):
            for j, place in enumerate(places):
                a, b = (row.get((seed, place), {}).get(field) for row in (own, other))
                if a is not None and b is not None:
                    table[i, j] = _POINTS * (a - b)
        mean, spread = _score(table)
        found[column] = [mean, spread, bool(mean > 2 * spread)]
    return found


def tables(found: Mapping[str, Any]) -> str:
    """A `summary` as Markdown."""
    single = SINGLE_FRAME in found["rows"]
    names = sorted(found["rows"], key=lambda name: _order(name, found["recipe"]))
    body = [
        [_titled(name), *(_cell(found["rows"][name][column]) for column in COLUMNS)]
        for name in names
    ]
    counted = len(found["seeds"])
    parts = [
        f"{found['recipe']}: mean IoU over {', '.join(found['divisions'])} and "
        f"{counted} seed{'s' * (counted != 1)}, pixels of a division pooled; ± is the "
        "deviation over seeds. Recovery in frames.\n\n"
        + format_table(body, ["row", *COLUMNS])
    ]
    columns = [column for column in COLUMNS if column != "recovery"]
    gains = [
        [_titled(name), *(_gained(found["gains"][name][column]) for column in columns)]
        for name in names
        if name in found["gains"]
    ]
    parts.append(
        "Points gained over each row (* above twice its deviation over seeds)\n\n"
        + format_table(gains, ["over", *columns])
    )
    for title, group in (("kind", "by_kind"), ("frame of the burst", "by_position")):
        heads = list(found["rows"][found["recipe"]][group])
        body = [
            [
                _titled(name),
                *(_cell(found["rows"][name][group][head]) for head in heads),
            ]
            for name in names
        ]
        parts.append(
            f"Corrupted frames by {title}\n\n" + format_table(body, ["row", *heads])
        )
    if not single:
        parts.append(f"{SINGLE}: of {found['recipe']}'s own first stage.")
    return "\n\n".join(parts)


def page(found: Mapping[str, Any]) -> str:
    """A `summary` as one HTML document that loads nothing."""
    names = sorted(found["rows"], key=lambda name: _order(name, found["recipe"]))

    def drawn(title: str, *path: str) -> str:
        rows = []
        for name in names:
            value: Any = found["rows"][name]
            for step in path:
                value = value[step]
            mean, spread = value
            rows.append((_titled(name), mean, (mean - spread, mean + spread)))
        return bars(rows, title=title)

    charts = [
        drawn("Corrupted frames, mean IoU", "corrupted"),
        drawn("Kinds never trained", "unseen kinds"),
        drawn("Clean frames between bursts", "clean between"),
        *(
            drawn(f"Frame {at} of a burst", "by_position", at)
            for at in found["rows"][found["recipe"]]["by_position"]
        ),
    ]
    title = f"What the memory of {found['recipe']} is worth"
    text = f"<pre>{escape(tables(found))}</pre>"
    return document(title, f"<h1>{escape(title)}</h1>{''.join(charts)}{text}")


def _order(name: str, recipe: str) -> tuple[int, str]:
    """The recipe, the single frame, other networks, averages, wrong memories."""
    if name in WRONG:
        return 4, str(WRONG.index(name))
    rank = {recipe: 0, SINGLE_FRAME: 1, SINGLE: 1}.get(name)
    averages = ("last mask", "last clean mask (told)", *FAMILIES)
    return rank if rank is not None else 3 if name in averages else 2, name


def _titled(name: str) -> str:
    return "single frame, equal epochs" if name == SINGLE_FRAME else name


def _cell(score: Sequence[float]) -> str:
    mean, spread = score
    if math.isnan(mean):
        return "n/a"
    return f"{mean:.3f}" if math.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"


def _gained(gain: Sequence[Any]) -> str:
    mean, spread, sure = gain
    if math.isnan(mean):
        return "n/a"
    text = f"{mean:+.1f}" if math.isnan(spread) else f"{mean:+.1f} ± {spread:.1f}"
    return text + " *" * sure
