"""Frames of any size and aspect for a network of one size, and its labels back.

A frame is padded with black to the network's aspect, below or at the right, and then
resized as training data are. Labels of the padded frame are cut where the frame ends.
A frame that has the network's aspect is resized alone, as `evaluation` does.
"""

import numpy as np

from data_pipelines.io.images import resize_image, resize_label, size_fault

Size = tuple[int, int]

MAX_LABELS = 2**24
"""Pixels of a label map that a program computes; larger frames get enlarged labels."""


def padded_size(size: Size, network: Size) -> Size:
    """(height, width) of a frame of `size` padded to the aspect of `network`."""
    (height, width), (across, along) = size, network
    return max(height, round(width * across / along)), max(
        width, round(height * along / across)
    )


def canvas_fault(size: Size, network: Size) -> str:
    """Why frames of `size` are not letterboxed for `network`; empty if they are.

    A strip of a picture, padded to the network's aspect, is a huge one.
    """
    fault = size_fault(*size)
    if fault:
        return fault
    height, width = padded_size(size, network)
    fault = size_fault(height, width)
    if fault:
        frame = f"{size[1]}x{size[0]} (width x height)"
        return f"{frame} padded to the network's aspect: {fault}"
    return ""


def label_size(size: Size, network: Size) -> Size:
    """At which size to compute labels of letterboxed frames of `size`.

    That of the padded frame, up to `MAX_LABELS` pixels.
    """
    height, width = padded_size(size, network)
    scale = min(1.0, (MAX_LABELS / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def letterbox(frame: np.ndarray, network: Size) -> np.ndarray:
    """The frame as the network takes it.

    Args:
        frame: uint8 [h, w, 3].
        network: its (H, W).

    Returns:
        uint8 [H, W, 3]; the frame itself if it has that size.
    """
    size = frame.shape[:2]
    height, width = padded_size(size, network)
    if (height, width) != size:
        below, right = height - size[0], width - size[1]
        frame = np.pad(frame, ((0, below), (0, right), (0, 0)))
    return resize_image(frame, network)


def restore(label: np.ndarray, size: Size, network: Size) -> np.ndarray:
    """Labels of a letterboxed frame, as labels of the frame.

    Args:
        label: uint8 [h, w] of the whole canvas, at any size.
        size: of the frame.
        network: the (H, W) that the frame was letterboxed to.

    Returns:
        uint8 of `size`.
    """
    whole = resize_label(label, padded_size(size, network))
    return np.ascontiguousarray(whole[: size[0], : size[1]])


def uncovered(small: np.ndarray, size: Size, network: Size) -> np.ndarray:
    """The part of a small map [h, w] of the whole canvas that the frame covers.

    Args:
        small: at any size, which is kept.
        size: of the frame.
        network: the (H, W) that the frame was letterboxed to.
    """
    whole = padded_size(size, network)
    rows, columns = (
        max(1, round(side * part / total))
        for side, part, total in zip(small.shape, size, whole, strict=True)
    )
    return small[:rows, :columns]
