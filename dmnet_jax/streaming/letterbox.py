"""Letterboxing: frames of any size for a network of fixed size, and labels back.

A frame is padded with black at the bottom or right to the network's aspect ratio and
then resized like the training data. Labels of the padded frame are cropped to the
frame. A frame that already has the network's aspect ratio is only resized, as in
`evaluation`.
"""

import numpy as np

from data_pipelines.io.images import resize_image, resize_label, size_fault

Size = tuple[int, int]

MAX_LABELS = 2**24
"""Maximum pixels of a computed label map; labels of larger frames are upsampled."""


def canvas_size(size: Size, network: Size) -> Size:
    """Returns (height, width) of a frame of `size` padded to the `network` aspect."""
    (height, width), (across, along) = size, network
    return max(height, round(width * across / along)), max(
        width, round(height * along / across)
    )


def fitted(size: Size, network: Size) -> Size:
    """Returns the input (H, W) of the network's height and a frame's aspect ratio.

    Both are multiples of 32. The width is 1/2 to 2 times that of the network, so that
    the cost of a frame is bounded; letterboxing does the rest.

    Args:
        size: (height, width) of the frame.
        network: (H, W) that the network was trained with.
    """
    height, width = network
    smallest, largest = 32 * -(-width // 64), 32 * (width // 16)
    return height, min(max(fitted_width(size, height), smallest), largest)


def fitted_width(size: Size, height: int) -> int:
    """Returns the width, a multiple of 32, of frames of `size` resized to `height`."""
    return max(32, round(height * size[1] / size[0] / 32) * 32)


def canvas_fault(size: Size, network: Size) -> str:
    """Returns why frames of `size` cannot be letterboxed; empty if they can.

    A very narrow frame becomes huge when padded to the network's aspect ratio.
    """
    fault = size_fault(*size)
    if fault:
        return fault
    height, width = canvas_size(size, network)
    fault = size_fault(height, width)
    if fault:
        frame = f"{size[1]}x{size[0]} (width x height)"
        return f"{frame} padded to the network's aspect ratio: {fault}"
    return ""


def label_size(size: Size, network: Size) -> Size:
    """Returns the (h, w) at which to compute labels of letterboxed frames of `size`.

    This is the size of the padded frame, scaled down to at most `MAX_LABELS` pixels.
    """
    height, width = canvas_size(size, network)
    scale = min(1.0, (MAX_LABELS / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def letterbox(frame: np.ndarray, network: Size) -> np.ndarray:
    """Pads and resizes a frame to the network's input size.

    Args:
        frame: uint8 [h, w, 3].
        network: (H, W) of the network's input.

    Returns:
        uint8 [H, W, 3]. The frame itself, not a copy, if it already has that size.
    """
    size = frame.shape[:2]
    height, width = canvas_size(size, network)
    if (height, width) != size:
        below, right = height - size[0], width - size[1]
        frame = np.pad(frame, ((0, below), (0, right), (0, 0)))
    return resize_image(frame, network)


def restore(label: np.ndarray, size: Size, network: Size) -> np.ndarray:
    """Maps labels of a letterboxed frame back to the original frame.

    Args:
        label: uint8 [h, w], labels of the padded frame at any resolution.
        size: (height, width) of the original frame.
        network: (H, W) that the frame was letterboxed to.

    Returns:
        uint8 [*size].
    """
    whole = resize_label(label, canvas_size(size, network))
    return np.ascontiguousarray(whole[: size[0], : size[1]])


def uncovered(small: np.ndarray, size: Size, network: Size) -> np.ndarray:
    """Crops a map of the padded frame to the part that the frame covers.

    Args:
        small: [h, w], at any resolution; it is not resized.
        size: (height, width) of the original frame.
        network: (H, W) that the frame was letterboxed to.
    """
    whole = canvas_size(size, network)
    rows, columns = (
        max(1, round(side * part / total))
        for side, part, total in zip(small.shape, size, whole, strict=True)
    )
    return small[:rows, :columns]
