"""Writes `bursts.json`, `bursts.md` and `bursts.csv`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.corruption import KINDS, SEVERITIES
from data_pipelines.frames import FrameSource
from data_pipelines.io.files import atomic_write, make_folder, write_text
from dmnet_jax.evaluation.bursts.averages import FAMILIES
from dmnet_jax.evaluation.bursts.benchmark import Scored
from dmnet_jax.evaluation.bursts.summary import POSITIONS
from dmnet_jax.evaluation.results import write_json
from dmnet_jax.metrics import format_table

NAN = float("nan")


def tables(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats three tables: all scores, by burst position and severity, and by kind."""
    hidden = {name for names in FAMILIES.values() for name in names}
    shown = {
        f"{name} ({row['best']})" if "best" in row else name: row
        for name, row in rows.items()
        if name not in hidden
    }
    columns = {
        "corrupted": "corrupted",
        "if clean": "corrupted_if_clean",
        "trained kinds": "trained_kinds",
        "unseen kinds": "unseen_kinds",
        "clean between": "clean_between",
        "if clean ": "clean_between_if_clean",
        "clean video": "clean_video",
        "recovery": "recovery_frames",
    }
    whole = [
        [name, *(_number(row.get(field)) for field in columns.values())]
        for name, row in shown.items()
    ]
    parts = [
        "Mean IoU, pixels pooled; recovery in frames\n\n"
        + format_table(whole, ["row", *(name.strip() for name in columns)])
    ]
    for title, groups in (
        (
            "Corrupted frames by position in the burst and by severity",
            {"by_position": POSITIONS, "by_severity": SEVERITIES},
        ),
        ("Corrupted frames by kind", {"by_kind": KINDS}),
    ):
        places = [
            (group, str(name)) for group, names in groups.items() for name in names
        ]
        body = [
            [name, *(_number(row[group][place]) for group, place in places)]
            for name, row in shown.items()
        ]
        heads = [
            {"by_position": "frame ", "by_severity": "severity "}.get(group, "") + place
            for group, place in places
        ]
        parts.append(f"{title}\n\n{format_table(body, ['row', *heads])}")
    return "\n\n".join(parts)


def write(
    folder: Path,
    scored: Sequence[Scored],
    rows: Mapping[str, Mapping[str, Any]],
    source: FrameSource,
    about: Mapping[str, Any],
) -> None:
    """Writes the three files into `folder`.

    Args:
        folder: the output folder; created if missing.
        scored: result of `run_bursts`; the CSV has a row for each frame and class.
        rows: result of `summarized`.
        source: the videos that were scored.
        about: further content of `bursts.json`: the settings and the network.
    """
    make_folder(folder)
    write_text(folder / "bursts.md", tables(rows) + "\n")
    names = [info.name for info in source.classes]
    with (
        atomic_write(folder / "bursts.csv") as fresh,
        fresh.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(
            ["row", "pass", "video", "frame", "burst", "kind", "severity"]
            + ["position", "class", "intersection", "predicted", "labelled"]
        )
        for one in scored:
            info = source.videos[one.video]
            where = one.row, one.run, info.name, info.frames[one.frame]
            burst = one.burst, one.kind, one.severity, one.position
            for name, counts in zip(names, one.counts.tolist(), strict=True):
                writer.writerow([*where, *burst, name, *counts])
    # Written last: if it exists, all other files exist.
    write_json(folder / "bursts.json", {**about, "rows": rows})


def _number(value: Any) -> float:
    return NAN if value is None else value
