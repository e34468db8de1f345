"""Charts as inline SVG in the page's colors, readable on a phone."""

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 460, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 8, 10, 26


class Line(NamedTuple):
    """A curve.

    Attributes:
        x: ascending x values.
        y: y values of the same length; the curve is interrupted where not finite.
        kind: CSS class: "main", or "dots" for points without a line.
    """

    x: Sequence[float]
    y: Sequence[float]
    kind: str = "main"


def document(title: str, body: str) -> str:
    """Returns a self-contained HTML document.

    Args:
        title: plain text.
        body: HTML.
    """
    style = files("dmnet_jax.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport "
        'content="width=device-width, initial-scale=1"><link rel=icon href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style>\n{body}"
        "\n<p class=soft>For research use; not a medical device.</p></html>\n"
    )


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    limits: dict[str, float] | None = None,
    bounds: Sequence[float] = (),
    x_title: str = "",
    span: tuple[float, float] | None = None,
    least: float = 0.0,
) -> str:
    """Draws curves over one axis.

    Args:
        lines: the curves, with at least one finite value; otherwise a note is returned.
        title: title of the chart, also used as its accessible label.
        limits: y values of dashed horizontal lines, by name.
        bounds: x positions of vertical lines.
        x_title: label of the x axis.
        span: first and last x of the axis. None: the range of the curves.
        least: minimum y range, so that noise is not magnified.
    """
    limits = {n: v for n, v in (limits or {}).items() if math.isfinite(v)}
    points = [
        (x, y) for a in lines for x, y in zip(a.x, a.y, strict=True) if math.isfinite(y)
    ]
    if not points:
        return f"<p class=soft>{escape(title)}: no data.</p>"
    xs, ys = zip(*points, strict=True)
    values = [*ys, *limits.values()]
    low, high = min(values), max(values)
    missing = max(0.0, (least or float(high == low)) - (high - low))
    low, high = low - missing / 2, high + missing / 2
    air = 0.05 * (high - low)
    low, high = low - air, high + air
    first, last = span or (min(xs), max(max(xs), min(xs) + 1))

    def at_x(x: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - first) / (last - first)

    def at_y(y: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - y) / (high - low)

    parts = []
    for tick in ticks(low, high):
        y = at_y(tick)
        parts.append(f'<path class=grid d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        text = f"{tick:.6g}"
        parts.append(f'<text x={_LEFT - 6} y="{y + 4:.1f}" class=end>{text}</text>')
    foot = HEIGHT - 8
    parts.append(f"<text x={_LEFT} y={foot}>{first:g}</text>")
    parts.append(f"<text x={WIDTH - _RIGHT} y={foot} class=end>{last:g}</text>")
    middle = (WIDTH + _LEFT) / 2
    parts.append(f'<text x="{middle}" y={foot} class=middle>{escape(x_title)}</text>')
    for bound in bounds:
        x = at_x(bound)
        parts.append(f'<path class=bound d="M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
    for line in lines:
        parts.append(_drawn(line, at_x, at_y))
    named = "".join(f" · {escape(n)} {v:.4g}" for n, v in limits.items())
    for value in limits.values():
        y = at_y(value)
        parts.append(f'<path class=limit d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
    return (
        f"<figure class=chart><figcaption>{escape(title)}<span>{named}</span>"
        "</figcaption><svg role=img "
        f'aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _drawn(line: Line, at_x, at_y) -> str:
    places = [
        (at_x(x), at_y(y)) if math.isfinite(y) else None
        for x, y in zip(line.x, line.y, strict=True)
    ]
    if line.kind == "dots":
        dots = [p for p in places if p]
        return "".join(
            f'<circle class=dot cx="{x:.1f}" cy="{y:.1f}" r=3 />' for x, y in dots
        )
    path, down = [], False
    for place in places:
        if place:
            path.append(f"{'L' if down else 'M'}{place[0]:.1f} {place[1]:.1f}")
        down = place is not None
    return f'<path class=main d="{"".join(path)}"/>'


def bars(
    rows: Sequence[tuple[str, float, tuple[float, float] | None]], *, title: str
) -> str:
    """Draws horizontal bars of scores in 0..1, with whiskers for known intervals.

    Args:
        rows: (name, score, interval or None); the score is NaN if undefined.
        title: title of the chart.
    """
    left, pitch = 148, 26
    height, span = pitch * len(rows) + 24, WIDTH - left - 54
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + span * tick
        parts.append(f'<path class=grid d="M{x:.1f} 2V{height - 20}"/>')
        text = f"{tick:g}"
        parts.append(f'<text x="{x:.1f}" y={height - 6} class=middle>{text}</text>')
    for index, (name, score, interval) in enumerate(rows):
        y = pitch * index + 4
        short = name if len(name) <= 20 else f"{name[:19]}…"
        text = f"<title>{escape(name)}</title>{escape(short)}"
        parts.append(f"<text x={left - 8} y={y + 13} class=end>{text}</text>")
        known = math.isfinite(score)
        if known:
            wide = f"{span * score:.1f}"
            parts.append(f'<rect class=bar x={left} y={y} width="{wide}" height=18 />')
        if interval and all(map(math.isfinite, interval)):
            a, b = (left + span * end for end in interval)
            path = f"M{a:.1f} {y + 4}v10m0 -5H{b:.1f}m0 -5v10"
            parts.append(f'<path class=whisker d="{path}"/>')
        text = f"{score:.3f}" if known else "n/a"
        parts.append(f"<text x={WIDTH - 4} y={y + 13} class=end>{text}</text>")
    return (
        f"<figure class=chart><figcaption>{escape(title)}</figcaption><svg role=img "
        f'aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height}">'
        f"{''.join(parts)}</svg></figure>"
    )


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Returns about `about` round numbers from low to high."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(step * n, 12) for n in range(first, last + 1)]


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Returns trailing means over `window` values."""
    array = np.asarray(values, float)
    return [
        float(array[max(0, i - window + 1) : i + 1].mean()) for i in range(len(array))
    ]
