"""HTML page about a run."""

import base64
import io
import json
import math
import struct
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.io.images import MAX_PIXELS
from dmnet_jax.evaluation.results_file import ResultsError
from dmnet_jax.metrics import bootstrap_interval, summarize
from dmnet_jax.report.charts import Line, bars, chart, document, smoothed
from dmnet_jax.report.record import Record

_WIDEST = 1040
_MISSING = "<p class=soft>Not in this run's evaluation; run evaluate.py again.</p>"


def page(record: Record, speed: dict[str, Any] | None = None) -> str:
    """Returns the report as a self-contained HTML document.

    Args:
        record: the run, from `read_run`.
        speed: result of `speed.measure`. None: speed was not measured.
    """
    title = f"{record.config['name'] or 'unnamed'}, {record.run.name}"
    sections = [
        _head(title, record),
        _training(record),
        _scores(record),
        _bars(record),
        _confusion(record),
        _frames(record),
        _memory(record),
        _speed(speed),
        _provenance(record),
    ]
    return document(title, "\n".join(sections))


def _head(title: str, record: Record) -> str:
    results, pooled = record.results, record.results["protocols"]["global"]
    data = record.config["data"]
    flicker = results.get("flicker", {}).get("share")
    admitted = _nan(results["admitted"])
    surface = results.get("surface_distance", {})
    tiles = {
        "mean IoU, pixels pooled": _score(pooled["iou"]),
        "mean Dice, pixels pooled": _score(pooled["dice"]),
        f"surface distance at {surface.get('tolerance_px', 0):g} px": _score(
            surface.get("mean")
        ),
        "flicker": _score(flicker),
        "frames scored": str(len(record.counts)),
        "remembered": "n/a" if not _remembers(record) else f"{admitted:.0%}",
    }
    shown = "".join(
        f"<div><b>{value}</b><span class=soft>{escape(name)}</span></div>"
        for name, value in tiles.items()
    )
    videos = ", ".join(dict.fromkeys(record.videos.tolist()))
    text = f"{data['dataset']}, scored on {videos}; results of {record.evaluated}"
    return f"<h1>{escape(title)}</h1><p class=soft>{escape(text)}</p>" + (
        f"<div class=tiles>{shown}</div>"
    )


def _training(record: Record) -> str:
    steps = [line for line in record.metrics if "loss" in line]
    if not steps:
        return _section("Training", "<p class=soft>metrics.jsonl has no steps.</p>")
    stages = list(dict.fromkeys(line.get("stage", "") for line in steps))
    ends = [
        max(line["step"] for line in steps if line.get("stage", "") == stage)
        for stage in stages
    ]
    window = max(1, len(steps) // 50)

    def curve(lines: list[Line], title: str, least: float = 0.0) -> str:
        axis: Any = {"x_title": "step", "span": (0, steps[-1]["step"])}
        return chart(lines, title=title, bounds=ends[:-1], least=least, **axis)

    curves = []
    for field, title in (
        ("loss", "Loss"),
        ("batch_iou", "IoU of training batches"),
        ("grad_norm", "Gradient norm"),
    ):
        lines = [line for line in steps if line.get(field) is not None]
        if lines:
            x, y = ([line[name] for line in lines] for name in ("step", field))
            line = Line(x, smoothed(y, window))
            curves.append(curve([line], title))
    scored = [line for line in record.metrics if line.get("val_iou") is not None]
    if scored:
        x, y = ([line[name] for line in scored] for name in ("step", "val_iou"))
        both = [Line(x, y), Line(x, y, "dots")]
        curves.append(curve(both, "Validation IoU", least=0.1))
    mean = f"; curves are means over {window} records" if window > 1 else ""
    caption = (
        f"{len(stages)} stage{'s' * (len(stages) > 1)}: {', '.join(stages)}{mean}."
    )
    return _section(
        "Training",
        f"<p class=soft>{escape(caption)}</p><div class=grid2>{''.join(curves)}</div>",
    )


def _scores(record: Record) -> str:
    rows = []
    for name, scores in record.results["protocols"].items():
        intervals = scores.get("interval_95", {})
        rows.append(
            [
                scores.get("letter", ""),
                name,
                _score(scores["iou"]),
                _interval(intervals.get("iou")),
                _score(scores["dice"]),
                _interval(intervals.get("dice")),
                scores.get("meaning", ""),
            ]
        )
    headers = ["", "protocol", "mIoU", "95 %", "mDice", "95 %", "definition, source"]
    caption = (
        "The same predictions by every published protocol; 95 %: bootstrap over videos."
    )
    parts = [f"<p class=soft>{caption}</p>", _table(headers, rows, text=(1, 6))]
    borders = record.results.get("surface_distance")
    if borders:
        flicker = record.results["flicker"]
        columns = {**borders["videos"], "all videos": borders}
        body = [
            [name, *(_score(video["per_class"][name]) for video in columns.values())]
            for name in record.results["classes"][1:]
        ]
        body.append(["mean", *(_score(video["mean"]) for video in columns.values())])
        shares = [*flicker["videos"].values(), flicker["share"]]
        body.append(["flicker", *map(_score, shares)])
        tolerance = f"{borders['tolerance_px']:g}"
        parts.append(
            f"<p class=soft>Normalized surface distance at {tolerance} px, and "
            "flicker, by video.</p>" + _table(["class", *columns], body)
        )
    return _section("Scores", "".join(parts))


def _bars(record: Record) -> str:
    names = record.results["classes"]

    def per_class(frames: Any) -> Any:
        found = summarize(record.counts[frames], protocol="global")
        return found["iou_per_class"][1:]

    scores = per_class(np.arange(len(record.counts)))
    intervals = bootstrap_interval(per_class, record.videos, seed=0)
    by_class = list(zip(names[1:], map(float, scores), intervals, strict=True))
    videos = record.results["protocols"]["global"]["videos"]
    pooled = record.results["protocols"]["global"]
    everything = ("all", pooled["iou"], tuple(pooled["interval_95"]["iou"]))
    rows = [(name, video["iou"], None) for name, video in videos.items()]
    rows = [(n, _nan(score), _known(ends)) for n, score, ends in [*rows, everything]]
    caption = "Whiskers: 95 % of 1000 resamples of whole videos."
    if len(videos) < 2:
        caption = (
            "No whiskers, because an interval over videos needs two or more videos."
        )
    return _section(
        "By class and video",
        f"<p class=soft>{caption}</p><div class=grid2>"
        + bars(by_class, title="IoU by class, pixels pooled")
        + bars(rows, title="Mean IoU by video, pixels pooled")
        + "</div>",
    )


def _confusion(record: Record) -> str:
    stored = record.results.get("confusion")
    if not stored:
        return _section("Confusion", _MISSING)
    matrix, names = np.array(stored, float), record.results["classes"]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for name, values, pixels in zip(names, share, matrix.sum(1), strict=True):
        cells = "".join(
            f'<td class="cell {"dark" if value > 0.65 else "light"}" '
            f'style="--share: {value:.3f}">{100 * value:.1f}</td>'
            for value in values
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}<td>{pixels:,.0f}</td></tr>")
    return _section(
        "Confusion",
        "<p class=soft>Percentage of the pixels labeled as the row's class that are "
        "predicted as the column's.</p><div class=scroll><table><tr><th>labeled"
        f"</th>{head}<th>pixels</th></tr>{''.join(rows)}</table></div>",
    )


def _frames(record: Record) -> str:
    figures = []
    for name, about in record.picked.items():
        path = record.evaluated / "overlays" / f"{name}.png"
        if path.is_file():
            caption = f"{name}: {about['video']}, {about['frame']}, "
            caption += f"mean IoU {_score(about['iou'])}"
            figures.append(
                f"<figure><figcaption>{escape(caption)}</figcaption>"
                f'<div class=scroll><img alt="{escape(caption)}" '
                f'src="{_embedded(path)}"></div></figure>'
            )
    body = "".join(figures) or _MISSING
    return _section("Best, median and worst frame", body)


def _memory(record: Record) -> str:
    thresholds = record.results.get("thresholds", {})
    alpha, beta = (
        {} if thresholds.get(name) is None else {symbol: thresholds[name]}
        for name, symbol in (("min_confidence", "α"), ("max_similarity", "β"))
    )
    charts = []
    for video, (frames, r, s, admitted) in record.timeline.items():
        x = list(range(len(frames)))
        for values, limits, title in (
            (r, alpha, "confidence r"),
            (s, beta, "similarity s"),
        ):
            marks = np.where(admitted > 0, values, math.nan)
            lines = [Line(x, values.tolist()), Line(x, marks.tolist(), "dots")]
            title = f"{video}: {title}"
            span = 0, max(1, len(frames) - 1)
            charts.append(
                chart(lines, title=title, limits=limits, x_title="frame", span=span)
            )
    if not _remembers(record):
        body = "<p class=soft>This network has no global memory.</p>"
    elif not charts:
        body = _MISSING
    else:
        body = (
            "<p class=soft>A frame enters the global memory (dot) if its confidence is "
            "above α and its similarity to the last admitted frame is below β; the "
            f"first frame always does.</p><div class=grid2>{''.join(charts)}</div>"
        )
    return _section("The memory over time", body)


def _remembers(record: Record) -> bool:
    """Returns whether the network has a global memory; assumed for older results."""
    return record.results.get("thresholds") != {}


def _speed(speed: dict[str, Any] | None) -> str:
    if speed is None:
        return _section("Speed", "<p class=soft>Not measured for this page.</p>")
    latency, machine = speed["latency"], speed["machine"]
    names = ("p50", "p95", "p99", "max")
    row = [f"{latency[f'{name}_ms']:.1f}" for name in names]
    row.append(f"{1000 / latency['p50_ms']:.1f}")
    height, width = speed["size"]
    caption = (
        f"One stream, {height}x{width}, {latency['steps']} frames, uint8 frame in, "
        f"labels out; {speed['device']}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['date']}. Measured while this page was written."
    )
    headers = [*(f"{name}, ms" for name in names), "frames/s at p50"]
    body = _table(headers, [row]) + f"<p class=soft>{escape(caption)}</p>"
    return _section("Speed", body)


def _provenance(record: Record) -> str:
    results = record.results
    about = results.get("about", {})
    scoring = results.get("scoring", {})
    facts = {
        "made by": f"python train.py --config {record.run / 'config.json'}",
        "evaluated by": f"python evaluate.py --checkpoint {record.run}",
        "scoring": ", ".join(f"{name} {value}" for name, value in scoring.items()),
        "trained on": ", ".join(about.get("train_videos", [])),
        "scored on": ", ".join(dict.fromkeys(record.videos.tolist())),
        "weights, sha256": results.get("weights_sha256", ""),
        "split, sha256": results.get("split_sha256") or "",
        "trained with": _list(about.get("versions", {})),
        "evaluated with": _list(results.get("versions", {})),
        "devices": ", ".join(about.get("devices", [])),
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
        if value
    )
    config = escape(json.dumps(record.config, indent=1))
    return _section(
        "Provenance",
        f"<dl>{rows}</dl><details><summary>Configuration</summary>"
        f"<pre>{config}</pre></details>",
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[Any]], text: Sequence[int] = ()
) -> str:
    def row(cells: Sequence[Any], tag: str) -> str:
        kinds = [' class="text"' if i in text else "" for i in range(len(cells))]
        if text and text[-1] == len(cells) - 1:
            kinds[-1] = ' class="text long"'
        return "".join(
            f"<{tag}{kind}>{escape(str(cell))}</{tag}>"
            for cell, kind in zip(cells, kinds, strict=True)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    head = row(headers, "th")
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _embedded(path: Any) -> str:
    """Returns an image as a JPEG data URL, at most as wide as the page needs."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"more than {MAX_PIXELS / 1e6:g} million pixels")
            picture = image.convert("RGB")
    except (
        *(OSError, SyntaxError, ValueError, EOFError, struct.error),
        Image.DecompressionBombError,
    ) as error:
        raise ResultsError(path, f"damaged ({error}); evaluate again") from error
    if picture.width > 2 * _WIDEST:
        height = round(picture.height * 2 * _WIDEST / picture.width)
        picture = picture.resize((2 * _WIDEST, height))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=86)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _nan(score: float | None) -> float:
    return math.nan if score is None else float(score)


def _known(ends: Sequence[float | None] | None) -> tuple[float, float] | None:
    return None if ends is None else (_nan(ends[0]), _nan(ends[1]))


def _score(score: float | None) -> str:
    return "n/a" if score is None or math.isnan(score) else f"{score:.3f}"


def _interval(ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None or ends[1] is None:
        return "n/a"
    return f"{ends[0]:.3f}–{ends[1]:.3f}"


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
