"""The paper's figures 2 and 3 from finished runs, as images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.frames import FrameSource, resize_image
from dmnet_jax import evaluation
from dmnet_jax.checkpoint.runs import load_run
from dmnet_jax.config import Config
from dmnet_jax.datasets import open_videos
from dmnet_jax.evaluation import Prediction
from dmnet_jax.report.charts import ticks
from dmnet_jax.video.overlay import contact_sheet, legend, overlay

INK, FAINT, PAPER = (20, 20, 20), (205, 205, 205), (255, 255, 255)
ADMITTED, OTHER, LINE = (0, 114, 178), (170, 170, 170), (213, 94, 0)


def opened(run: Config) -> tuple[Any, Any, FrameSource]:
    """Loads a finished run's network, variables and validation videos.

    Raises:
        ValueError: there is no such run.
    """
    model, variables, _, about = load_run(run.run_directory)
    return model, variables, open_videos(run.data, about["val_videos"])


def figure2(
    methods: Sequence[tuple[str, Config]], rows: int, *, width: int = 320
) -> Image.Image:
    """Draws input, all methods and ground truth side by side (paper, figure 2).

    The frames are evenly spaced over the labeled frames of the validation videos and
    not selected by hand. Every method processes its video from the start.

    Args:
        methods: (column title, run) of each method.
        rows: number of frames.
        width: width of each image in pixels.

    Raises:
        ValueError: a run is not finished, or no frame has a label.
    """
    columns, chosen, source = [], [], None
    for _, run in methods:
        network, variables, source = opened(run)
        chosen = chosen or _evenly(source, rows)
        columns.append(_predicted(network, variables, source, chosen))
    assert source is not None
    colors = [info.color for info in source.classes]

    def picture(video: int, found: Prediction, label: np.ndarray | None) -> Image.Image:
        assert found.truth is not None
        image = resize_image(source.image(video, found.frame), found.truth.shape)
        if label is not None:
            image = overlay(image, label, colors)
        height = round(width * image.shape[0] / image.shape[1])
        return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)

    titles = ["(a) Image", *(name for name, _ in methods), "Ground truth"]
    titles[1:] = [f"({chr(98 + i)}) {name}" for i, name in enumerate(titles[1:])]
    sheet: list[list[Any]] = []
    for row, (video, _) in enumerate(chosen):
        found = [column[row] for column in columns]
        labels = [None, *(one.label for one in found), found[0].truth]
        sheet.append([picture(video, found[0], label) for label in labels])
    sheet.append([_caption(title, width) for title in titles])
    grid = contact_sheet(sheet)
    names = [info.name for info in source.classes]
    return contact_sheet([[grid], [legend(names, colors, width=grid.width, size=20)]])


def _predicted(
    network: Any, variables: Any, source: FrameSource, chosen: list[tuple[int, int]]
) -> list[Prediction]:
    """Predicts each chosen (video, frame), running every video once."""
    found = {}
    for video in dict.fromkeys(video for video, _ in chosen):
        wanted = {frame for number, frame in chosen if number == video}
        for one in evaluation.predict_video(network, variables, source, video):
            if one.frame in wanted:
                found[video, one.frame] = one
            if one.frame == max(wanted):
                break
    return [found[place] for place in chosen]


def _evenly(source: FrameSource, count: int) -> list[tuple[int, int]]:
    """Selects (video, frame) of labeled frames, evenly spaced over all videos."""
    labeled = [
        (number, frame)
        for number, video in enumerate(source.videos)
        for frame in range(len(video.frames))
        if frame not in video.unlabeled
    ]
    if not labeled:
        raise ValueError("no frame of the validation videos has a label")
    places = np.linspace(0, len(labeled) - 1, count + 2)[1:-1].round().astype(int)
    return [labeled[i] for i in dict.fromkeys(places.tolist())]


def _caption(text: str, width: int) -> Image.Image:
    image = Image.new("RGB", (width, 32), PAPER)
    font = ImageFont.load_default(20)
    draw = ImageDraw.Draw(image)
    draw.text((width / 2, 16), text, INK, font=font, anchor="mm")
    return image


def figure3(run: Config, video: int, *, width: int = 1600) -> Image.Image:
    """Draws r, s and the admitted frames of a video (paper, figure 3).

    The figure shows confidence r and similarity s over frames, with the thresholds, and
    thumbnails of frames that entered the global memory.

    Args:
        run: a finished run of a DMNet with a global memory.
        video: index of the validation video.
        width: width of the figure in pixels.

    Raises:
        ValueError: there is no such run or video, or it has no global memory.
    """
    network, variables, source = opened(run)
    if "thresholds" not in variables or not network.global_memory:
        raise ValueError(f"{run.run_directory}: this network has no global memory")
    if not 0 <= video < len(source.videos):
        raise ValueError(
            f"video {video} does not exist; there are {len(source.videos)} validation "
            "videos"
        )
    found = list(evaluation.predict_video(network, variables, source, video))
    admitted = np.array([one.admitted for one in found])
    sheet: list[list[Any]] = []
    for score, threshold, words in (
        ("confidence", "min_confidence", ("confidence r", "alpha", "admitted above")),
        ("similarity", "max_similarity", ("similarity s", "beta", "admitted below")),
    ):
        values = np.array([getattr(one, score) for one in found])
        limit = float(variables["thresholds"][threshold])
        sheet.append([_plot(values, admitted, limit, words, width)])
    sheet.append([_thumbnails(source, video, np.flatnonzero(admitted), width)])
    return contact_sheet(sheet)


def _plot(
    values: np.ndarray,
    admitted: np.ndarray,
    threshold: float,
    words: tuple[str, str, str],
    width: int,
) -> Image.Image:
    """Plots values over frames, at twice the size for antialiasing."""
    name, symbol, side = words
    height, left, right, top, bottom = 340, 110, 30, 40, 50
    scale = 2
    image = Image.new("RGB", (scale * width, scale * height), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(scale * 18)
    known = np.isfinite(values)
    low = min(values[known].min(), threshold)
    high = max(values[known].max(), threshold)
    room = 0.08 * (high - low or 1)
    low, high = low - room, high + room
    across, up = width - left - right, height - top - bottom

    def at(frame: float, value: float) -> tuple[float, float]:
        x = left + across * frame / max(1, len(values) - 1)
        y = top + up * (high - value) / (high - low)
        return scale * x, scale * y

    for tick in ticks(low, high):
        draw.line([at(0, tick), at(len(values) - 1, tick)], FAINT, scale)
        x, y = at(0, tick)
        draw.text((x - 16, y), f"{tick:.3g}", INK, font=font, anchor="rm")
    for tick in ticks(0, max(1, len(values) - 1)):
        x, y = at(tick, low)
        draw.text((x, y + 12), f"{tick:g}", INK, font=font, anchor="mt")
    for first, last in _runs(known):
        line = [at(i, values[i]) for i in range(first, last)]
        draw.line(line, OTHER, 2 * scale, joint="curve")
    draw.line([at(0, threshold), at(len(values) - 1, threshold)], LINE, 2 * scale)
    for frame in np.flatnonzero(known).tolist():
        x, y = at(frame, values[frame])
        radius = scale * (5 if admitted[frame] else 2)
        color = ADMITTED if admitted[frame] else OTHER
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), color)
    draw.text((scale * left, scale * 8), name, INK, font=font)
    middle = scale * (left + across / 2), scale * (height - 2)
    draw.text(middle, "frame", INK, font=font, anchor="mb")
    caption = f"{symbol} = {threshold:.3g}: {side}; dots: admitted frames"
    draw.text(
        (scale * (width - right), scale * 8), caption, LINE, font=font, anchor="ra"
    )
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _thumbnails(
    source: FrameSource, video: int, admitted: np.ndarray, width: int, count: int = 8
) -> Image.Image:
    """Draws evenly spaced admitted frames with their indices."""
    chosen = np.unique(np.linspace(0, len(admitted) - 1, count).round().astype(int))
    side = width // count - 8
    row, under = [], []
    for frame in admitted[chosen].tolist():
        image = source.image(video, frame)
        size = side, round(side * image.shape[0] / image.shape[1])
        row.append(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        under.append(_caption(f"frame {frame}", side))
    return contact_sheet([row, under])


def _runs(known: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (first, end) of every contiguous run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
