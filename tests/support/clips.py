"""Tiny videos of every kind, and what is done to their packets."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (64, 96)
QUIET = {"libx265": {"x265-params": "log-level=none"}}


def scene(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise that moves, and a square: a coder has something to predict."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 120, (size[0] // 4, size[1] // 4, 3)).repeat(4, 0)
    image = np.roll(image.repeat(4, 1), (index, 2 * index), (0, 1))
    image[10:34, 4 + 2 * index :][:, :20] = (230, 200, 30)
    image = image + np.random.default_rng(index).integers(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def video(
    path: Path,
    codec: str,
    frames: int = 16,
    *,
    size: tuple[int, int] = SIZE,
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Encodes scenes at 25 frames a second.

    Args:
        path: its suffix is the container.
        codec: encoder.
        frames: how many.
        size: (H, W).
        options: of the encoder.
        settings: of its context, such as `gop_size` and `max_b_frames`.
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


def rewritten(
    source: Path,
    path: Path,
    change: Callable[[int, bytes], bytes | None] = lambda index, content: content,
    *,
    later: float = 0.0,
    turn: dict[str, Any] | None = None,
) -> Path:
    """A video whose packets are other ones.

    Args:
        source: of the packets.
        path: of the new video.
        change: number and content -> content, or None to leave the packet out.
        later: seconds that are added to its clock.
        turn: of `set_display_rotation`.
    """
    import av

    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        old: Any = given.streams.video[0]
        new: Any = made.add_stream_from_template(old)
        if turn:
            new.set_display_rotation(**turn)
        for index, packet in enumerate(given.demux(old)):
            content = change(index, bytes(packet)) if packet.size else None
            if content is None:
                continue
            shift = round(later / packet.time_base)
            copy = av.Packet(content)
            copy.stream, copy.time_base = new, packet.time_base
            copy.pts, copy.dts = packet.pts + shift, packet.dts + shift
            copy.is_keyframe = packet.is_keyframe
            made.mux(copy)
    return path


def spoiled(number: int, first: float = 0.5) -> Callable[[int, bytes], bytes]:
    """Overwrites one packet from a part of it on, with bytes that code nothing."""

    def change(index: int, content: bytes) -> bytes:
        if index != number:
            return content
        kept = int(first * len(content))
        return content[:kept] + b"\xff" * (len(content) - kept)

    return change
