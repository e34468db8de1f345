"""Visualization of labels: overlays, panels, contact sheets, palette PNGs.

Classes are marked by color and number, so that they can be distinguished without color.
Depends on NumPy and Pillow only.
"""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

PALETTE: tuple[Color, ...] = (
    (0, 0, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (213, 94, 0),
    (221, 221, 221),
    (51, 34, 136),
    (136, 34, 85),
    (153, 153, 51),
)
"""RGB colors for 12 classes, background first.

The first eight are by Okabe and Ito (2008) and can be distinguished with all common
forms of color blindness, ordered by contrast to tissue. The other four are by Paul Tol.
"""

IGNORE = 255
# Color of pixels without a class in a palette PNG.
_IGNORE_COLOR: Color = (128, 128, 128)
_INK, _PAPER = (20, 20, 20), (255, 255, 255)
_GAP = 8


def overlay(
    image: NDArray[np.uint8],
    label: NDArray,
    colors: Sequence[Color] = PALETTE,
    *,
    alpha: float = 0.45,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """Paints the classes of a label over an image.

    Background (class 0) and ignored pixels (255) keep their values exactly. Outlines
    are drawn inside their region, in its full color.

    Args:
        image: uint8 [H, W, 3].
        label: int [H, W], class indices or 255.
        colors: one color per class, background first.
        alpha: opacity, from 0 (only outlines) to 1 (opaque).
        outline: whether to draw region borders, 1 pixel wide in small images.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: shapes or dtypes are invalid, a class has no color, or `alpha` is
            outside [0, 1].
    """
    image, label = np.asarray(image), np.asarray(label)
    _check(image, label, colors)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    known = np.array([*colors, *[_IGNORE_COLOR] * (256 - len(colors))], np.uint8)
    marked = (label != 0) & (label != IGNORE)
    result = image.copy()
    result[marked] = np.rint(image[marked] * (1 - alpha) + known[label[marked]] * alpha)
    if outline:
        rim = marked & _rim(label, width=max(1, round(min(label.shape) / 400)))
        result[rim] = known[label[rim]]
    return result


def legend(
    names: Sequence[str],
    colors: Sequence[Color] = PALETTE,
    *,
    width: int = 640,
    size: int = 14,
) -> Image.Image:
    """Draws a legend with the color, number and name of each foreground class.

    Args:
        names: names of the classes, background first; the background is not drawn.
        colors: one color per class.
        width: width in pixels.
        size: font size in pixels.

    Returns:
        RGB image of `width`, as high as needed.

    Raises:
        ValueError: a class has no color.
    """
    if len(colors) < len(names):
        raise ValueError(f"{len(names)} classes but {len(colors)} colors; add some")
    font = ImageFont.load_default(size)
    pad, box = size // 2, round(size * 1.4)
    places, x, y = [], pad, pad
    for i, name in enumerate(names[1:], start=1):
        entry = box + pad + round(font.getlength(name))
        if x > pad and x + entry > width - pad:
            x, y = pad, y + box + pad
        places.append((i, name, x, y))
        x += entry + 2 * pad
    image = Image.new("RGB", (width, y + box + pad), _PAPER)
    draw = ImageDraw.Draw(image)
    for i, name, x, y in places:
        draw.rectangle((x, y, x + box - 1, y + box - 1), fill=colors[i])
        middle = (x + box / 2, y + box / 2)
        draw.text(middle, str(i), _ink_on(colors[i]), font=font, anchor="mm")
        left = (x + box + pad, y + box / 2)
        draw.text(left, name, _INK, font=font, anchor="lm")
    return image


def side_by_side(
    image: NDArray[np.uint8],
    prediction: NDArray,
    truth: NDArray | None,
    *,
    names: Sequence[str],
    colors: Sequence[Color] = PALETTE,
    titles: tuple[str, str, str] = ("frame", "prediction", "ground truth"),
) -> Image.Image:
    """Draws a frame, its prediction and its label, with titles and a legend.

    Each region is marked with the number of its class, as in the legend.

    Args:
        image: uint8 [H, W, 3].
        prediction: int [H, W].
        truth: int [H, W], 255 where there is no label. None: omit the panel.
        names: names of the classes, background first.
        colors: one color per class.
        titles: titles of the panels.

    Returns:
        RGB image.

    Raises:
        ValueError: see `overlay` and `legend`.
    """
    panels = [np.asarray(image)]
    panels += [
        numbered(overlay(image, label, colors), np.asarray(label))
        for label in (prediction, truth)
        if label is not None
    ]
    height, width = panels[0].shape[:2]
    size = max(12, round(height / 26))
    head = round(size * 1.8)
    total = len(panels) * width + (len(panels) - 1) * _GAP
    foot = legend(names, colors, width=total, size=size)
    sheet = Image.new("RGB", (total, head + height + foot.height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for i, (panel, title) in enumerate(zip(panels, titles, strict=False)):
        x = i * (width + _GAP)
        sheet.paste(Image.fromarray(panel), (x, head))
        middle = (x + width / 2, head / 2)
        draw.text(middle, title, _INK, font=font, anchor="mm")
    sheet.paste(foot, (0, head + height))
    return sheet


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8] | Image.Image]],
) -> Image.Image:
    """Arranges images in a grid; columns and rows are as large as needed.

    Args:
        rows: rows of uint8 [H, W, 3] arrays or Pillow images. Their lengths may differ.

    Returns:
        RGB image.

    Raises:
        ValueError: there is no image.
    """
    grid = [
        [p if isinstance(p, Image.Image) else Image.fromarray(p) for p in row]
        for row in rows
    ]
    columns = max(map(len, grid), default=0)
    if columns == 0:
        raise ValueError("a contact sheet needs at least one image")
    widths = [max(row[i].width for row in grid if i < len(row)) for i in range(columns)]
    heights = [max((picture.height for picture in row), default=0) for row in grid]
    full = (sum(widths) + _GAP * (columns - 1), sum(heights) + _GAP * (len(grid) - 1))
    sheet = Image.new("RGB", full, _PAPER)
    y = 0
    for row, height in zip(grid, heights, strict=True):
        x = 0
        for picture, width in zip(row, widths, strict=False):
            sheet.paste(picture, (x, y))
            x += width + _GAP
        y += height + _GAP
    return sheet


def save_indexed_png(
    path: str | os.PathLike[str],
    label: NDArray,
    colors: Sequence[Color] = PALETTE,
) -> None:
    """Writes a label as an 8-bit palette PNG whose indices are classes.

    Args:
        path: path of the file; its folder must exist.
        label: int [H, W], class indices or 255, which is drawn in gray.
        colors: one color per class.

    Raises:
        ValueError: the label is invalid or has a class without a color.
        OSError: the file cannot be written.
    """
    label = np.asarray(label)
    _check_label(label, colors)
    image = Image.fromarray(label.astype(np.uint8))
    # Set all 256 entries. With fewer, Pillow writes fewer bits per pixel, which would
    # lose 255 and is not supported by all readers.
    entries = [*colors, *[_IGNORE_COLOR] * (256 - len(colors))]
    image.putpalette([channel for color in entries for channel in color])
    image.save(path, format="PNG")


def _rim(label: NDArray, *, width: int) -> NDArray[np.bool_]:
    """Returns pixels within `width` (city block distance) of a different label."""
    rim = np.zeros(label.shape, bool)
    rim[1:] |= label[1:] != label[:-1]
    rim[:-1] |= label[:-1] != label[1:]
    rim[:, 1:] |= label[:, 1:] != label[:, :-1]
    rim[:, :-1] |= label[:, :-1] != label[:, 1:]
    for _ in range(width - 1):
        rim = _grow(rim)
    return rim


def _grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns the mask dilated by its 4-neighbors."""
    wider = mask.copy()
    wider[1:] |= mask[:-1]
    wider[:-1] |= mask[1:]
    wider[:, 1:] |= mask[:, :-1]
    wider[:, :-1] |= mask[:, 1:]
    return wider


def numbered(image: NDArray[np.uint8], label: NDArray) -> NDArray[np.uint8]:
    """Draws the class number at the thickest point of each large enough region."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    size = _text_size(label)
    font = ImageFont.load_default(size)
    for class_id, x, y in places(label):
        draw.text(
            (x, y),
            str(class_id),
            _PAPER,
            font=font,
            anchor="mm",
            stroke_width=max(1, size // 8),
            stroke_fill=_INK,
        )
    return np.asarray(picture)


def places(label: NDArray) -> list[tuple[int, int, int]]:
    """Returns (class, x, y) of the thickest point of each region large enough for text.

    Args:
        label: int [H, W].
    """
    step = max(1, _text_size(label) // 4)
    coarse = np.pad(label[::step, ::step], 1)
    return [
        (class_id, (column - 1) * step, (row - 1) * step)
        for class_id in np.unique(label).tolist()
        if class_id not in (0, IGNORE)
        for row, column in _thickest(coarse == class_id, room=2)
    ]


def _text_size(label: NDArray) -> int:
    return max(11, round(label.shape[0] / 26))


def _thickest(mask: NDArray[np.bool_], *, room: int) -> list[tuple[int, int]]:
    """Returns (row, column) of the innermost pixel of regions deeper than `room`."""
    depth, inner = np.zeros(mask.shape, int), mask
    while inner.any():
        depth += inner
        inner = ~_grow(~inner)
    places = []
    while depth.max() > room:
        row, column = divmod(int(depth.argmax()), mask.shape[-1])
        places.append((row, column))
        region, wider = np.zeros_like(mask), np.zeros_like(mask)
        wider[row, column] = True
        while (wider != region).any():
            region, wider = wider, _grow(wider) & mask
        depth[region] = 0
    return places


def _ink_on(color: Color) -> Color:
    red, green, blue = color
    return _INK if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else _PAPER


def _check(image: NDArray, label: NDArray, colors: Sequence[Color]) -> None:
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {image.shape}; it must be uint8 [H, W, 3] (RGB)"
        )
    if label.shape != image.shape[:2]:
        raise ValueError(
            f"image {image.shape} and label {label.shape} do not match; resize the "
            "label to the image's size with nearest neighbor"
        )
    _check_label(label, colors)


def _check_label(label: NDArray, colors: Sequence[Color]) -> None:
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise ValueError(f"label is {label.dtype} {label.shape}; it must be int [H, W]")
    wrong = (label != IGNORE) & ((label < 0) | (label >= len(colors)))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"label is {label[row, column]} at row {row}, column {column}, but there "
            f"are {len(colors)} colors; pass one per class"
        )
