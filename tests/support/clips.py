"""Small encoded videos, and changes of their packets."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (64, 96)
QUIET = {"libx265": {"x265-params": "log-level=none"}}


def scene(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Returns a frame with moving noise and a square, so that prediction is useful."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 120, (size[0] // 4, size[1] // 4, 3)).repeat(4, 0)
    image = np.roll(image.repeat(4, 1), (index, 2 * index), (0, 1))
    image[10:34, 4 + 2 * index :][:, :20] = (230, 200, 30)
    image = image + np.random.default_rng(index).integers(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def write_video(
    path: Path,
    codec: str,
    frames: int = 16,
    *,
    size: tuple[int, int] = SIZE,
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Encodes scenes at 25 frames per second.

    Args:
        path: the file; its suffix determines the container.
        codec: name of the encoder.
        frames: number of frames.
        size: (H, W).
        options: options of the encoder.
        settings: attributes of its context, such as `gop_size` and `max_b_frames`.
    """
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            codec, rate=25, options=options or QUIET.get(codec, {})
        )
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index, size), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path,
    path: Path,
    change: Callable[[int, bytes], bytes | None] = lambda index, content: content,
    *,
    later: float = 0.0,
    turn: dict[str, Any] | None = None,
) -> Path:
    """Copies a video with changed packets.

    Args:
        source: the original video.
        path: the new video.
        change: maps index and content of a packet to its new content, or None to omit
            the packet.
        later: seconds to add to the timestamps.
        turn: arguments of `set_display_rotation`.
    """
    import av

    with av.open(str(source)) as input_, av.open(str(path), "w") as output:
        old: Any = input_.streams.video[0]
        new: Any = output.add_stream_from_template(old)
        if turn:
            new.set_display_rotation(**turn)
        for index, packet in enumerate(input_.demux(old)):
            content = change(index, bytes(packet)) if packet.size else None
            if content is None:
                continue
            shift = round(later / packet.time_base)
            copy = av.Packet(content)
            copy.stream, copy.time_base = new, packet.time_base
            copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
            copy.is_keyframe = packet.is_keyframe
            output.mux(copy)
    return path


def damage_packet(number: int, first: float = 0.5) -> Callable[[int, bytes], bytes]:
    """Returns a change that overwrites one packet with 0xff, from a share on."""

    def change(index: int, content: bytes) -> bytes:
        if index != number:
            return content
        start = int(first * len(content))
        return content[:start] + b"\xff" * (len(content) - start)

    return change
